//! Where a case runs: a store, a prefix of its own, and what the server behind it lacks.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use pailfs::error::Result;
use pailfs::store::{
    Attributes, Checksums, CopyAttributes, Counted, Faulty, GetReply, Limited, ListPage, ListRequest, ObjectStore,
    StoreOptions, UploadBody, connect,
};
use pailfs::types::{Expect, ObjectKey, Version};

/// What a server may lack, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    DeleteIfMatch,
    CopyTargetConditions,
    StorageClasses,
    ControlCharacters,
    LongComponents,
    FlatNamespace,
    SecondSlashes,
    PartCopiesInSummedUploads,
    ReplacingAllOnSelfCopy,
    SpacesAroundMetadata,
    KmsEncryption,
}

fn lacks(server: &str) -> &'static [Ability] {
    use Ability::*;
    match server {
        "minio" => &[
            DeleteIfMatch,
            CopyTargetConditions,
            StorageClasses,
            LongComponents,
            FlatNamespace,
            SecondSlashes,
            PartCopiesInSummedUploads,
            // It has, where it was started with a key of that name.
            KmsEncryption,
        ],
        "versitygw" => &[
            CopyTargetConditions,
            StorageClasses,
            ControlCharacters,
            LongComponents,
            FlatNamespace,
            SecondSlashes,
            PartCopiesInSummedUploads,
            ReplacingAllOnSelfCopy,
            KmsEncryption,
        ],
        // It decodes RFC 2047 words on arrival and encodes them again only for what is not ASCII.
        "demo" => &[SpacesAroundMetadata],
        _ => &[],
    }
}

/// All that travels with an object of the default class.
pub const KEPT: CopyAttributes = CopyAttributes::Keep { storage_class: None, encryption: None };

pub struct World {
    pub store: Arc<dyn ObjectStore>,
    /// Uploads made of copies are summed too.
    pub sums_copies: bool,
    prefix: String,
    server: String,
}

impl World {
    pub fn has(&self, ability: Ability) -> bool {
        let has = !lacks(&self.server).contains(&ability);
        if !has {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {} lacks {ability:?}", self.server);
        }
        has
    }

    pub fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::from_store(format!("{}{name}", self.prefix))
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Version {
        let body = UploadBody::Memory(bytes.into());
        self.store.put(&self.key(name), body, &Attributes::default(), &Expect::Any).await.unwrap()
    }

    pub async fn bytes(&self, name: &str) -> Bytes {
        collect(self.store.get(&self.key(name), None, None).await.unwrap()).await.unwrap()
    }

    pub async fn exists(&self, name: &str) -> bool {
        self.store.head(&self.key(name)).await.is_ok()
    }

    pub async fn list(&self, below: &str, by_directory: bool, max_keys: u16) -> Vec<ListPage> {
        let prefix = format!("{}{below}", self.prefix);
        let mut request = ListRequest { prefix, by_directory, max_keys, ..ListRequest::default() };
        let mut pages = Vec::new();
        loop {
            let page = self.store.list(request.clone()).await.unwrap();
            request.continuation = page.next.clone();
            pages.push(page);
            if request.continuation.is_none() {
                return pages;
            }
        }
    }

    /// Names below the prefix of this case, without it.
    pub fn names(&self, pages: &[ListPage]) -> Vec<String> {
        let objects = pages.iter().flat_map(|page| &page.objects).map(|object| object.key.as_str());
        objects.map(|key| key.strip_prefix(&self.prefix).unwrap().to_owned()).collect()
    }
}

pub async fn collect(mut reply: GetReply) -> Result<Bytes> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes.into())
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Runs a case on the bare store, as it is used with servers other than AWS, and on a decorated one, as it is
/// used with AWS; each below a prefix of its own.
pub fn on_every_store<F: Future<Output = ()>>(case: impl Fn(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let at = crate::server::for_tests();
        for (checksums, decorated) in [(Checksums::Bodies, false), (Checksums::Whole, true)] {
            let options = StoreOptions { checksums: Some(checksums), ..at.options.clone() };
            let store: Arc<dyn ObjectStore> = Arc::new(connect(&options).await.unwrap());
            let store = if decorated { decorate(store) } else { store };
            let sums_copies = checksums == Checksums::Whole;
            case(World { store, sums_copies, prefix: unique(), server: at.server.clone() }).await;
        }
    });
}

fn decorate(store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(Counted::new(Arc::new(Limited::new(Arc::new(Faulty::new(store)), 4))))
}

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("contract-{now:x}-{}/", NEXT.fetch_add(1, Ordering::Relaxed))
}

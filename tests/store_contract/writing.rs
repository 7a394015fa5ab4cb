//! PUT, COPY and DELETE without conditions.

use std::io::Write;
use std::sync::Arc;

use pailfs::error::Error;
use pailfs::store::{Attributes, CopyAttributes, CopyRequest, UploadBody, UserMetadata};
use pailfs::types::{ByteRange, Expect};

use crate::reading::crc;
use crate::world::{Ability, KEPT, World, on_every_store, pattern};

fn described() -> Attributes {
    Attributes {
        metadata: [("file-mode", "0644"), ("note", "grün 日本"), ("eq", "=?x?=")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        content_type: Some("text/plain; charset=utf-8".into()),
        cache_control: Some("max-age=60".into()),
        content_disposition: Some("attachment; filename=\"a b\"".into()),
        content_encoding: Some("gzip".into()),
        content_language: Some("de".into()),
        ..Attributes::default()
    }
}

async fn attributes(world: &World, name: &str) -> Attributes {
    let head = world.store.head(&world.key(name)).await.unwrap().attributes;
    let get = world.store.get(&world.key(name), None, None).await.unwrap().info.attributes;
    assert_eq!(head, get);
    // A store may encrypt all it has.
    Attributes { storage_class: None, encryption: None, ..head }
}

#[test]
fn attributes_come_back_as_they_went() {
    on_every_store(|world| async move {
        let body = UploadBody::Memory("x".into());
        world.store.put(&world.key("a"), body, &described(), &Expect::Any).await.unwrap();
        assert_eq!(attributes(&world, "a").await, described());
    });
}

#[test]
fn spaces_around_metadata_are_kept() {
    on_every_store(|world| async move {
        if !world.has(Ability::SpacesAroundMetadata) {
            return;
        }
        let spaced: UserMetadata = [("spaced".to_owned(), " led and trailed ".to_owned())].into();
        let attributes = Attributes { metadata: spaced.clone(), ..Attributes::default() };
        world.store.put(&world.key("a"), UploadBody::Memory("x".into()), &attributes, &Expect::Any).await.unwrap();
        assert_eq!(world.store.head(&world.key("a")).await.unwrap().attributes.metadata, spaced);
    });
}

#[test]
fn an_overwrite_replaces_bytes_and_attributes() {
    on_every_store(|world| async move {
        let body = UploadBody::Memory("first".into());
        let first = world.store.put(&world.key("a"), body, &described(), &Expect::Any).await.unwrap();
        let second = world.put("a", "second one").await;
        assert_ne!(first.etag, second.etag);
        assert_eq!(world.bytes("a").await, "second one");
        let now = attributes(&world, "a").await;
        assert!(now.metadata.is_empty() && now.cache_control.is_none() && now.content_encoding.is_none(), "{now:?}");
    });
}

#[test]
fn a_storage_class_passes_through() {
    on_every_store(|world| async move {
        if !world.has(Ability::StorageClasses) {
            return;
        }
        let cold = Attributes { storage_class: Some("STANDARD_IA".into()), ..Attributes::default() };
        world.store.put(&world.key("a"), UploadBody::Memory("x".into()), &cold, &Expect::Any).await.unwrap();
        let info = world.store.head(&world.key("a")).await.unwrap();
        assert_eq!(info.attributes.storage_class.as_deref(), Some("STANDARD_IA"));
        let pages = world.list("", false, 0).await;
        assert_eq!(pages[0].objects[0].storage_class.as_deref(), Some("STANDARD_IA"));
        for (name, storage_class) in [("warm", None), ("cold", cold.storage_class)] {
            let request = CopyRequest {
                source: world.key("a"),
                source_etag: info.version.etag.clone(),
                target: world.key(name),
                expect: Expect::Any,
                attributes: CopyAttributes::Keep { storage_class: storage_class.clone(), encryption: None },
            };
            world.store.copy(request).await.unwrap();
            let class = world.store.head(&world.key(name)).await.unwrap().attributes.storage_class;
            assert_eq!(class.filter(|class| class != "STANDARD"), storage_class, "{name}");
        }
    });
}

#[test]
fn a_large_file_is_uploaded_from_the_disk() {
    on_every_store(|world| async move {
        let bytes = pattern(20 << 20);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let file = Arc::new(file);
        for (name, range) in [
            ("all", ByteRange::new(0, 20 << 20)),
            ("some", ByteRange::new(7, (5 << 20) + 11)),
            ("little", ByteRange::new(100, 200)),
            ("none", ByteRange::new(5, 5)),
        ] {
            let body = UploadBody::File { file: file.clone(), range };
            let version = world.store.put(&world.key(name), body, &Attributes::default(), &Expect::Any).await.unwrap();
            assert_eq!(version.size, range.len());
            let sent = &bytes[range.start as usize..range.end as usize];
            assert!(world.bytes(name).await == sent, "{name}");
            let info = world.store.head(&world.key(name)).await.unwrap();
            assert_eq!(info.crc64nvme, Some(crc(sent)), "{name}");
            assert_eq!(info.attributes.content_encoding, None, "{name}");
        }
    });
}

#[test]
fn a_file_that_is_too_short_fails_locally() {
    on_every_store(|world| async move {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern(2 << 20)).unwrap();
        let body = UploadBody::File { file: Arc::new(file), range: ByteRange::new(0, 3 << 20) };
        let failed = world.store.put(&world.key("a"), body, &Attributes::default(), &Expect::Any).await;
        assert!(matches!(failed, Err(Error::Local { .. })), "{failed:?}");
        assert!(!world.exists("a").await);
    });
}

#[test]
fn a_copy_keeps_or_replaces_attributes() {
    on_every_store(|world| async move {
        let body = UploadBody::Memory("the bytes".into());
        let source = world.store.put(&world.key("a"), body, &described(), &Expect::Any).await.unwrap();
        let request = |target: &str, attributes| CopyRequest {
            source: world.key("a"),
            source_etag: source.etag.clone(),
            target: world.key(target),
            expect: Expect::Any,
            attributes,
        };
        let kept = world.store.copy(request("kept", KEPT)).await.unwrap();
        assert_eq!(kept.etag, world.store.head(&world.key("kept")).await.unwrap().version.etag);
        assert_eq!(attributes(&world, "kept").await, described());

        let other = Attributes {
            metadata: [("only".to_owned(), "this".to_owned())].into(),
            content_type: Some("text/html".into()),
            ..Attributes::default()
        };
        world.store.copy(request("replaced", CopyAttributes::Replace(other.clone()))).await.unwrap();
        assert_eq!(attributes(&world, "replaced").await, other);
        assert_eq!(world.bytes("replaced").await, "the bytes");

        world.store.copy(request("a", CopyAttributes::Replace(other.clone()))).await.unwrap();
        if world.has(Ability::ReplacingAllOnSelfCopy) {
            assert_eq!(attributes(&world, "a").await, other);
        }
        assert_eq!(world.bytes("a").await, "the bytes");
    });
}

#[test]
fn delete_succeeds_whether_or_not_it_is_there() {
    on_every_store(|world| async move {
        world.put("a", "x").await;
        for _ in 0..2 {
            world.store.delete(&world.key("a"), None).await.unwrap();
            assert!(!world.exists("a").await);
        }
    });
}

#[test]
fn delete_many_removes_what_is_there() {
    on_every_store(|world| async move {
        for name in ["a", "b c", "d+e%", "f/g"] {
            world.put(name, "x").await;
        }
        let keys = ["a", "b c", "d+e%", "f/g", "never"].map(|name| world.key(name));
        let failed = world.store.delete_many(&keys).await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(world.list("", false, 0).await[0].objects.is_empty());
        assert!(world.store.delete_many(&[]).await.unwrap().is_empty());
    });
}

#[test]
fn rename_is_refused_where_it_would_truncate() {
    on_every_store(|world| async move {
        if world.store.capabilities().rename {
            return;
        }
        let version = world.put("a", "precious").await;
        world.put("b", "precious too").await;
        let refused = world.store.rename(&world.key("a"), &version.etag, &world.key("b"), &Expect::Any).await;
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
        assert_eq!(world.bytes("b").await, "precious too");
    });
}

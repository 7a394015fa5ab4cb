//! ListObjectsV2.

use aws_sdk_s3::Config;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::types::{EncodingType, Object};

use super::{S3Store, encoding, seconds};
use crate::error::{Error, Result};
use crate::store::{ListPage, ListRequest, ListedObject, errors};
use crate::types::{ETag, ObjectKey, Version};

impl S3Store {
    pub(super) async fn list_page(&self, request: ListRequest) -> Result<ListPage> {
        self.list_page_with(request, Config::builder()).await
    }

    /// As `list_page`, with a configuration of its own.
    pub(super) async fn list_page_with(&self, request: ListRequest, how: Builder) -> Result<ListPage> {
        let max_keys = (request.max_keys > 0).then_some(i32::from(request.max_keys));
        let call = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(request.prefix)
            .encoding_type(EncodingType::Url)
            .set_request_payer(self.payer())
            .set_delimiter(request.by_directory.then(|| "/".to_owned()))
            .set_max_keys(max_keys)
            .set_continuation_token(request.continuation)
            .set_start_after(request.start_after);
        let answer =
            call.customize().config_override(how).send().await.map_err(|error| errors::read("ListObjectsV2", error))?;
        // Not every store encodes; one that does says so.
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let text = |text: &str| if encoded { encoding::listed(text) } else { Ok(text.to_owned()) };
        let prefixes = answer.common_prefixes().iter().filter_map(|entry| entry.prefix()).map(text);
        let objects = answer.contents().iter().filter_map(|object| Some((object.key()?, object)));
        let page = ListPage {
            prefixes: prefixes.collect::<Result<_>>()?,
            objects: objects.map(|(key, object)| Ok(listed(text(key)?, object))).collect::<Result<_>>()?,
            next: answer.next_continuation_token().map(str::to_owned),
        };
        match (answer.is_truncated().unwrap_or_default(), &page.next) {
            (true, None) => Err(Error::Corrupt("a listing goes on, but does not say where".into())),
            (true, Some(_)) => Ok(page),
            (false, _) => Ok(ListPage { next: None, ..page }),
        }
    }
}

fn listed(key: String, object: &Object) -> ListedObject {
    let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    let etag = ETag::parse(object.e_tag().unwrap_or_default());
    let class = object.storage_class().map(|class| class.as_str()).filter(|class| *class != "STANDARD");
    ListedObject {
        key: ObjectKey::from_store(key),
        version: Version { etag, size, modified: seconds(object.last_modified()) },
        storage_class: class.map(str::to_owned),
    }
}

//! Tags and encryption, which an object has beside its metadata.

use pailfs::store::{Attributes, CopyAttributes, CopyRequest, Encryption, PartSource, Tags, UploadBody};
use pailfs::types::{Expect, PartNumber};

use crate::world::{Ability, KEPT, World, on_every_store};

fn tagged() -> Vec<(String, String)> {
    [("a team", "blue + green"), ("eq=", "+1"), ("none", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// PUT, and a multipart upload.
async fn written(world: &World, attributes: &Attributes) {
    let store = &world.store;
    store.put(&world.key("put"), UploadBody::Memory("x".into()), attributes, &Expect::Any).await.unwrap();
    let key = world.key("parts");
    let upload = store.create_upload(&key, attributes, PartSource::Bodies).await.unwrap();
    let number = PartNumber::from_index(0).unwrap();
    let part = store.upload_part(&key, &upload, number, UploadBody::Memory("x".into())).await.unwrap();
    store.complete_upload(&key, &upload, &[part], 1, None, &Expect::Any).await.unwrap();
}

async fn copied(world: &World, target: &str, attributes: CopyAttributes) {
    let source = world.key("put");
    let source_etag = world.store.head(&source).await.unwrap().version.etag;
    let request = CopyRequest { source, source_etag, target: world.key(target), expect: Expect::Any, attributes };
    world.store.copy(request).await.unwrap();
}

#[test]
fn tags_go_with_what_is_written_and_with_copies_and_are_counted() {
    on_every_store(|world| async move {
        written(&world, &Attributes { tags: Tags::of(tagged()), ..Attributes::default() }).await;
        copied(&world, "kept", KEPT).await;
        let other = Attributes { content_type: Some("text/x-test".into()), ..Attributes::default() };
        copied(&world, "replaced", CopyAttributes::Replace(other)).await;
        for name in ["put", "parts", "kept", "replaced"] {
            let mut found = world.store.tags(&world.key(name)).await.unwrap();
            found.sort();
            assert_eq!(found, tagged(), "{name}");
            let head = world.store.head(&world.key(name)).await.unwrap().attributes.tags;
            let get = world.store.get(&world.key(name), None, None).await.unwrap().info.attributes.tags;
            assert_eq!((head, get), (Tags::Some, Tags::Some), "{name}");
        }
        world.put("plain", "x").await;
        assert_eq!(world.store.tags(&world.key("plain")).await.unwrap(), []);
        assert_eq!(world.store.head(&world.key("plain")).await.unwrap().attributes.tags, Tags::None);
    });
}

#[test]
fn the_encryption_that_is_named_is_kept() {
    on_every_store(|world| async move {
        if !world.has(Ability::KmsEncryption) {
            return;
        }
        let kms = Encryption { algorithm: "aws:kms".into(), key: Some("arn:aws:kms:k1".into()), bucket_key: true };
        let plain = Encryption { algorithm: "AES256".into(), key: None, bucket_key: false };
        for encryption in [Some(kms), Some(plain)] {
            let attributes = Attributes { encryption: encryption.clone(), ..Attributes::default() };
            written(&world, &attributes).await;
            copied(&world, "kept", CopyAttributes::keep(&attributes)).await;
            copied(&world, "replaced", CopyAttributes::Replace(attributes)).await;
            for name in ["put", "parts", "kept", "replaced"] {
                let head = world.store.head(&world.key(name)).await.unwrap().attributes.encryption;
                let get = world.store.get(&world.key(name), None, None).await.unwrap().info.attributes.encryption;
                assert_eq!((&head, &get), (&encryption, &encryption), "{name}");
            }
        }
    });
}

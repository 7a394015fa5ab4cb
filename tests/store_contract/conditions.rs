//! What must stand at a key for a write to it to be done.

use pailfs::error::{Error, Result};
use pailfs::store::{Attributes, CopyRequest, UploadBody};
use pailfs::types::{ETag, Expect, Version};

use crate::world::{Ability, KEPT, World, on_every_store};

async fn put(world: &World, bytes: &'static str, expect: &Expect) -> Result<Version> {
    world.store.put(&world.key("a"), UploadBody::Memory(bytes.into()), &Attributes::default(), expect).await
}

#[test]
fn a_put_that_expects_nothing_creates_once() {
    on_every_store(|world| async move {
        put(&world, "first", &Expect::Absent).await.unwrap();
        let second = put(&world, "second", &Expect::Absent).await;
        assert!(matches!(second, Err(Error::PreconditionFailed)), "{second:?}");
        assert_eq!(world.bytes("a").await, "first");
    });
}

#[test]
fn a_put_that_expects_a_version_replaces_only_that() {
    on_every_store(|world| async move {
        let first = put(&world, "first", &Expect::Any).await.unwrap();
        let second = put(&world, "second", &Expect::Is(first.etag.clone())).await.unwrap();
        let late = put(&world, "late", &Expect::Is(first.etag.clone())).await;
        assert!(matches!(late, Err(Error::PreconditionFailed)), "{late:?}");
        assert_eq!(world.bytes("a").await, "second");
        world.store.delete(&world.key("a"), None).await.unwrap();
        let gone = put(&world, "gone", &Expect::Is(second.etag)).await;
        assert!(matches!(gone, Err(Error::PreconditionFailed)), "{gone:?}");
        assert!(!world.exists("a").await);
    });
}

#[test]
fn of_many_creators_one_wins() {
    on_every_store(|world| async move {
        let attempts = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let results = futures_util::future::join_all(attempts.map(|bytes| put(&world, bytes, &Expect::Absent))).await;
        let winners: Vec<_> = attempts.iter().zip(&results).filter(|(_, result)| result.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_eq!(world.bytes("a").await, *winners[0].0);
        for result in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(matches!(result, Error::PreconditionFailed | Error::ConcurrentWrite), "{result:?}");
        }
    });
}

#[test]
fn a_copy_is_guarded_by_its_source() {
    on_every_store(|world| async move {
        world.put("a", "bytes").await;
        let request = CopyRequest {
            source: world.key("a"),
            source_etag: ETag::parse("0123456789abcdef0123456789abcdef"),
            target: world.key("b"),
            expect: Expect::Any,
            attributes: KEPT,
        };
        let refused = world.store.copy(request.clone()).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
        assert!(!world.exists("b").await);
        let missing = world.store.copy(CopyRequest { source: world.key("never"), ..request }).await;
        assert!(matches!(missing, Err(Error::NotFound | Error::PreconditionFailed)), "{missing:?}");
    });
}

#[test]
fn a_copy_is_guarded_by_its_target() {
    on_every_store(|world| async move {
        let source = world.put("a", "bytes").await;
        let there = world.put("b", "there").await;
        let copy = |target: &str, expect| {
            let source_etag = source.etag.clone();
            let request = CopyRequest {
                source: world.key("a"),
                source_etag,
                target: world.key(target),
                expect,
                attributes: KEPT,
            };
            world.store.copy(request)
        };
        copy("new", Expect::Absent).await.unwrap();
        if !world.has(Ability::CopyTargetConditions) {
            return;
        }
        let refused = copy("b", Expect::Absent).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
        let refused = copy("b", Expect::Is(source.etag.clone())).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
        assert_eq!(world.bytes("b").await, "there");
        copy("b", Expect::Is(there.etag)).await.unwrap();
        assert_eq!(world.bytes("b").await, "bytes");
    });
}

#[test]
fn a_delete_is_guarded_by_the_version() {
    on_every_store(|world| async move {
        let old = world.put("a", "old").await;
        let new = world.put("a", "new bytes").await;
        if world.has(Ability::DeleteIfMatch) {
            let refused = world.store.delete(&world.key("a"), Some(&old.etag)).await;
            assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
            assert_eq!(world.bytes("a").await, "new bytes");
        }
        world.store.delete(&world.key("a"), Some(&new.etag)).await.unwrap();
        assert!(!world.exists("a").await);
    });
}

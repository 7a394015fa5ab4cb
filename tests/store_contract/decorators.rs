//! What the decorators add.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use pailfs::error::Error;
use pailfs::store::{
    Attributes, Counted, Fault, FaultKind, Faulty, Limited, ListRequest, ObjectStore, Operation, Outcome, UploadBody,
};
use pailfs::types::{Expect, ObjectKey};

use crate::world::{collect, on_every_store, pattern};

fn memory(bytes: impl Into<bytes::Bytes>) -> UploadBody {
    UploadBody::Memory(bytes.into())
}

async fn put(store: &impl ObjectStore, key: &ObjectKey, bytes: &'static str) -> Result<(), Error> {
    store.put(key, memory(bytes), &Attributes::default(), &Expect::Any).await.map(drop)
}

#[test]
fn requests_and_bytes_are_counted() {
    on_every_store(|world| async move {
        let counted = Counted::new(world.store.clone());
        let key = world.key("a");
        put(&counted, &key, "12345").await.unwrap();
        collect(counted.get(&key, None, None).await.unwrap()).await.unwrap();
        assert!(counted.head(&world.key("absent")).await.is_err());
        let counts = counted.counts();
        assert_eq!((counts.of(Operation::Put).requests, counts.of(Operation::Put).bytes_out), (1, 5));
        assert_eq!((counts.of(Operation::Get).requests, counts.of(Operation::Get).bytes_in), (1, 5));
        assert_eq!((counts.of(Operation::Head).requests, counts.of(Operation::Head).failures), (1, 1));
        assert_eq!(counts.total().requests, 3);
    });
}

#[test]
fn each_request_is_counted_by_what_came_of_it() {
    on_every_store(|world| async move {
        let counted = Counted::new(world.store.clone());
        let key = world.key("a");
        put(&counted, &key, "12345").await.unwrap();
        let exists = counted.put(&key, memory("x"), &Attributes::default(), &Expect::Absent).await;
        assert!(exists.is_err());
        assert!(counted.head(&world.key("absent")).await.is_err());
        // Nobody waits for this one.
        assert!(counted.tags(&key).now_or_never().is_none());
        let of =
            |operation| counted.outcomes(operation).into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        assert_eq!(of(Operation::Put), [(Outcome::Ok, 1), (Outcome::Conflict, 1)]);
        assert_eq!(of(Operation::Head), [(Outcome::NotFound, 1)]);
        assert_eq!(of(Operation::Tags), [(Outcome::Cancelled, 1)]);
        assert_eq!((counted.counts().of(Operation::Put).failures, counted.latencies(Operation::Put).count), (1, 2));
        assert_eq!(counted.counts().total().failures, 2);
    });
}

#[test]
fn a_body_holds_its_place_until_it_is_read() {
    on_every_store(|world| async move {
        world.put("a", pattern(100_000)).await;
        let limited = Limited::new(world.store.clone(), 1);
        let key = world.key("a");
        let mut reply = limited.get(&key, None, None).await.unwrap();
        assert_eq!(limited.free(), (0, 1));
        let mut waiting = limited.get(&key, None, None);
        assert!(tokio::time::timeout(Duration::ZERO, waiting.as_mut()).await.is_err());
        while reply.body.next().await.is_some() {}
        drop(waiting.await.unwrap());
        assert_eq!(limited.free(), (1, 1));
        assert!(limited.get(&world.key("absent"), None, None).await.is_err());
        assert_eq!(limited.free(), (1, 1));
    });
}

#[test]
fn names_are_looked_up_while_transfers_take_all_places() {
    on_every_store(|world| async move {
        world.put("a", pattern(100_000)).await;
        let limited = Limited::new(world.store.clone(), 1);
        let key = world.key("a");
        let held = limited.get(&key, None, None).await.unwrap();
        assert_eq!(limited.free(), (0, 1));
        assert_eq!(limited.head(&key).await.unwrap().version.size, 100_000);
        let request = ListRequest { prefix: key.as_str().to_owned(), max_keys: 1, ..ListRequest::default() };
        assert_eq!(limited.list(request).await.unwrap().objects.len(), 1);
        limited.delete(&key, None).await.unwrap();
        drop(held);
        assert_eq!(limited.free(), (1, 1));
    });
}

#[test]
fn a_scripted_failure_does_nothing() {
    on_every_store(|world| async move {
        let faulty = Faulty::new(world.store.clone());
        let key = world.key("a");
        faulty.add(Fault { skip: 1, ..Fault::next(Operation::Put, FaultKind::Fail(Error::ConcurrentWrite)) });
        put(&faulty, &key, "first").await.unwrap();
        let failed = put(&faulty, &key, "second").await;
        assert!(matches!(failed, Err(Error::ConcurrentWrite)), "{failed:?}");
        assert_eq!(world.bytes("a").await, "first");
        put(&faulty, &key, "third").await.unwrap();
        assert_eq!((world.bytes("a").await, faulty.fired()), ("third".into(), 1));
    });
}

#[test]
fn a_lost_reply_is_a_timeout_after_the_deed() {
    on_every_store(|world| async move {
        let faulty = Faulty::new(world.store.clone());
        faulty.add(Fault::next(Operation::Put, FaultKind::LoseReply));
        let lost = put(&faulty, &world.key("a"), "done").await;
        assert!(matches!(lost, Err(Error::Timeout(_))), "{lost:?}");
        assert_eq!(world.bytes("a").await, "done");
    });
}

#[test]
fn a_fault_fits_its_key_alone_and_can_be_cleared() {
    on_every_store(|world| async move {
        let faulty = Faulty::new(world.store.clone());
        let fault = Fault::next(Operation::Put, FaultKind::Fail(Error::NotFound));
        faulty.add(Fault { key: Some("bad".into()), times: None, ..fault });
        put(&faulty, &world.key("good"), "x").await.unwrap();
        for _ in 0..2 {
            assert!(put(&faulty, &world.key("bad"), "x").await.is_err());
        }
        faulty.clear();
        put(&faulty, &world.key("bad"), "x").await.unwrap();
    });
}

#[test]
fn a_body_is_cut_where_the_script_says() {
    on_every_store(|world| async move {
        let bytes = pattern(100_000);
        world.put("a", bytes.clone()).await;
        let faulty = Faulty::new(Arc::clone(&world.store));
        faulty.add(Fault::next(Operation::Get, FaultKind::CutBody { after: 12_345 }));
        let mut body = faulty.get(&world.key("a"), None, None).await.unwrap().body;
        let mut good = Vec::new();
        let error = loop {
            match body.next().await.expect("an error before the end") {
                Ok(chunk) => good.extend_from_slice(&chunk),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert!(good == bytes[..12_345]);
    });
}

#[test]
fn a_delay_comes_before_the_request() {
    on_every_store(|world| async move {
        let faulty = Faulty::new(world.store.clone());
        faulty.add(Fault::next(Operation::Head, FaultKind::Delay(Duration::from_millis(30))));
        let start = Instant::now();
        assert!(matches!(faulty.head(&world.key("absent")).await, Err(Error::NotFound)));
        assert!(start.elapsed() >= Duration::from_millis(30));
    });
}

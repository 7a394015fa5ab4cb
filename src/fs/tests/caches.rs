//! What is kept in memory is dropped when that is asked for; what is only here is not.

use super::*;
use crate::transfer::tests::fake::Call;

#[tokio::test]
async fn what_is_clean_is_asked_for_again() {
    let rig = Rig::new().await;
    rig.store.set("p/d/f", b"bytes".to_vec());
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let ino = rig.ino(dir, "f").await.expect("a file");
    let link = rig.fs.symlink(dir, b"link", b"target", (1, 2)).await.expect("a link").attr.ino;
    let listed = rig.names(dir).await;
    rig.fs.readlink(link).await.expect("a target");
    rig.store.take_calls();
    for dropped in [false, true] {
        if dropped {
            let clean = rig.fs.drop_caches();
            assert!([dir, ino, link].iter().all(|ino| clean.contains(ino)), "{clean:?}");
        }
        rig.fs.getattr(ino).await.expect("attributes");
        assert_eq!(rig.store.take_calls().contains(&Call::Head), dropped, "attributes");
        rig.fs.readlink(link).await.expect("a target");
        assert_eq!(rig.store.take_calls().contains(&Call::Get), dropped, "a target");
        assert_eq!(rig.names(dir).await, listed);
        assert_eq!(rig.store.take_calls().contains(&Call::List), dropped, "names");
    }
}

#[tokio::test]
async fn what_is_only_here_stays() {
    let rig = Rig::new().await;
    rig.store.set("p/gone", b"of before".to_vec());
    let gone = rig.ino(Ino::ROOT, "gone").await.expect("a file");
    let open = rig.open(gone, READ).await;
    rig.fs.unlink(Ino::ROOT, b"gone").await.expect("unlinked while it is open");
    let (ino, fh) = rig.create(Ino::ROOT, "new").await;
    rig.fs.write(fh, 0, b"half").await.expect("a write");
    let clean = rig.fs.drop_caches();
    assert!(!clean.contains(&ino) && !clean.contains(&gone), "{clean:?}");
    assert!(!rig.fs.is_closed(ino) && !rig.fs.is_closed(gone));
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, 4);
    assert_eq!(rig.names(Ino::ROOT).await, ["new"]);
    assert!(rig.ino(Ino::ROOT, "gone").await.is_err(), "it is unlinked");
    assert_eq!(rig.fs.read(open, 0, 9).await.expect("it is open").as_ref(), b"of before");
    rig.fs.write(fh, 4, b" and half").await.expect("a write");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/new").as_deref(), Some(&b"half and half"[..]));
}

#[tokio::test]
async fn the_memory_of_read_bytes_is_given_back_and_they_are_read_again() {
    let rig = Rig::new().await;
    let bytes: Vec<u8> = (0..9_000_000_u32).map(|number| (number % 251) as u8).collect();
    rig.store.set("p/large", bytes.clone());
    let ino = rig.ino(Ino::ROOT, "large").await.expect("a file");
    let fh = rig.open(ino, READ).await;
    for at in [0_usize, 1 << 20, 2 << 20, 1 << 20] {
        assert!(rig.fs.read(fh, at as u64, 4096).await.expect("bytes") == bytes[at..at + 4096], "at {at}");
        assert!(rig.fs.taken().memory > 0);
        rig.fs.drop_caches();
        // A request that is cut short gives its memory back when its task has ended.
        let given_back = async {
            while rig.fs.taken().memory > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), given_back).await.expect("it is given back");
    }
    rig.fs.release(fh).await.expect("a release");
}

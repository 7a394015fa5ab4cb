//! fio, which writes patterns at random places and verifies every block.

use crate::common::{Mount, TestServer, has_program};

#[track_caller]
fn fio(mount: &Mount, job: &str) {
    mount.sh(&format!(
        "fio --name=job --filename=data --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 \
         --thread --output=$LOCAL/fio.log {job} || {{ cat $LOCAL/fio.log; exit 1; }}"
    ));
}

#[track_caller]
fn written_and_verified(job: &str, size: u64) {
    if !has_program("fio") {
        return;
    }
    let server = TestServer::start();
    let mut mount = server.mount();
    fio(&mount, job);
    mount.remount();
    // Once more from the bucket, with cold caches.
    fio(&mount, &format!("{job} --verify_only"));
    assert_eq!(server.objects().head("data").map(|head| head.size), Some(size));
}

#[test]
fn fio_verifies_sequential_writes() {
    written_and_verified("--rw=write --bs=128k --size=64m", 64 << 20);
}

#[test]
fn fio_verifies_random_writes() {
    written_and_verified("--rw=randwrite --bs=4k --size=4m", 4 << 20);
}

#[test]
fn fio_verifies_random_writes_of_odd_sizes() {
    written_and_verified("--rw=randwrite --bsrange=512-96k --bs_unaligned=1 --size=16m", 16 << 20);
}

#[test]
fn fio_verifies_random_writes_through_a_map() {
    written_and_verified("--rw=randwrite --bs=4k --size=4m --ioengine=mmap", 4 << 20);
}

#[test]
fn fio_verifies_random_writes_with_an_fsync_now_and_then() {
    written_and_verified("--rw=randwrite --bs=16k --size=16m --fsync=200", 16 << 20);
}

#[test]
fn fio_verifies_several_writers_at_once() {
    if !has_program("fio") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount
        .sh("fio --name=job --directory=. --numjobs=4 --rw=randrw --bs=8k --size=8m --verify=crc32c --verify_fatal=1 \
         --thread --output=$LOCAL/fio.log || { cat $LOCAL/fio.log; exit 1; }");
    let data = server.objects().files().into_iter().filter(|name| name.starts_with("job."));
    assert_eq!(data.count(), 4);
}

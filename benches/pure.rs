//! The pure parts that every read and write passes through: range map, part plan, read-ahead window.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pailfs::stage::RangeMap;
use pailfs::transfer::{Pattern, plan_upload};
use pailfs::types::ByteRange;

const BLOCK: u64 = 128 << 10;
const BLOCKS: u64 = 8192;
const GIB: u64 = 1 << 30;

/// Every block once, in an order that looks random: an odd step visits all of a power of two.
fn scattered() -> impl Iterator<Item = u64> {
    (0..BLOCKS).map(|index| index * 5167 % BLOCKS * BLOCK)
}

fn range_map(c: &mut Criterion) {
    let mut group = c.benchmark_group("range map");
    group.throughput(Throughput::Elements(BLOCKS));
    group.bench_function("insert in order", |b| {
        b.iter(|| (0..BLOCKS).map(|index| ByteRange::at(index * BLOCK, BLOCK)).collect::<RangeMap>());
    });
    group.bench_function("insert scattered", |b| {
        b.iter(|| scattered().map(|start| ByteRange::at(start, BLOCK)).collect::<RangeMap>());
    });
    let half: RangeMap = (0..BLOCKS).step_by(2).map(|index| ByteRange::at(index * BLOCK, BLOCK)).collect();
    group.bench_function("what is missing of a block among 4096 gaps", |b| {
        b.iter(|| scattered().map(|start| half.missing(ByteRange::at(start, BLOCK)).len()).sum::<usize>());
    });
    group.finish();
}

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("read-ahead window");
    group.throughput(Throughput::Elements(BLOCKS));
    group.bench_function("in order", |b| b.iter(|| observe((0..BLOCKS).map(|index| index * BLOCK))));
    group.bench_function("scattered", |b| b.iter(|| observe(scattered())));
    group.finish();
}

fn observe(starts: impl Iterator<Item = u64>) -> u64 {
    let mut pattern = Pattern::default();
    starts.map(|start| pattern.observe(ByteRange::at(start, BLOCK), GIB, 64 << 20).ahead.end).max().unwrap_or(0)
}

fn plan(c: &mut Criterion) {
    c.bench_function("plan of the largest object", |b| {
        b.iter(|| {
            plan_upload(black_box(50_000_000_000_000), 8 << 20).map(|plan| plan.parts(50_000_000_000_000).count())
        });
    });
}

criterion_group!(benches, range_map, window, plan);
criterion_main!(benches);

//! What is left after a restart of the machine: only what was synced is believed.

use super::*;

/// As if the record under `path` were of the time before a restart of the machine.
fn restart(path: &std::path::Path) {
    let text = std::fs::read_to_string(path).expect("a record");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    let json = text[..text.len() - 17].replace(boot.trim(), "an earlier one");
    let sum = crc_fast::crc64_nvme(json.as_bytes());
    std::fs::write(path, format!("{json}{sum:016x}\n")).expect("written");
}

#[test]
fn after_a_restart_only_what_was_synced_is_whole() {
    for synced in [true, false] {
        let place = Place::new();
        {
            let (stage, _) = place.open();
            let file = stage.new_file().expect("a staged file");
            file.write_at(0, b"hello").expect("written");
            file.record(&record(RecordState::Sealed)).expect("recorded");
            if synced {
                file.fsync().expect("synced");
            }
            file.keep();
            restart(&file.path().with_extension("json"));
        }
        assert_eq!(place.open().1[0].whole().err(), (!synced).then_some(Doubt::Restarted));
    }
}

/// A commit that is tried again writes the record anew.
#[test]
fn a_record_that_is_written_again_tells_whether_the_bytes_are_those_that_were_synced() {
    type Change = fn(&StagedFile);
    let changes: [(&str, Change); 4] = [
        ("nothing", |_| {}),
        ("a write", |file| _ = file.write_at(0, b"H").expect("written")),
        ("a cut", |file| file.set_size(5).expect("cut")),
        ("what was missing", |file| file.fill_at(5, b"!").expect("filled")),
    ];
    for (what, change) in changes {
        let place = Place::new();
        {
            let (stage, _) = place.open();
            let file = stage.over(6).expect("a staged file");
            file.write_at(0, b"hello").expect("written");
            file.record(&record(RecordState::Sealed)).expect("recorded");
            file.fsync().expect("synced");
            change(&file);
            file.record(&Record { size: file.size(), ..record(RecordState::Sealed) }).expect("recorded");
            file.keep();
            restart(&file.path().with_extension("json"));
        }
        let doubt = place.open().1[0].whole().err();
        assert_eq!(doubt == Some(Doubt::Restarted), what != "nothing", "{what}: {doubt:?}");
    }
}

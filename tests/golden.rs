//! Whole outputs, readable by eye.
#[path = "common/memory.rs"]
mod memory;
use memory::*;
#[test]
fn dump() {
    let Ok(flv) = std::env::var("FLV") else { return };
    let mut b = Broadcast::new(settings());
    b.push(&std::fs::read(flv).unwrap().into());
    b.finish();
    println!("{:#?} {:?}", b.notices, b.packager.totals());
    let out = std::env::var("DUMP").unwrap();
    for (key, body) in &b.memory.objects {
        let p = format!("{out}/{key}");
        std::fs::create_dir_all(std::path::Path::new(&p).parent().unwrap()).unwrap();
        std::fs::write(&p, body).unwrap();
        if p.ends_with("m3u8") {
            println!("== {key}\n{}", String::from_utf8_lossy(body));
        }
    }
}

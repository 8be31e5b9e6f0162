use crate::support::*;
use std::time::Instant;
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
#[tokio::test]
async fn bench() {
    let url = std::env::var("BENCH_URL").unwrap();
    let ledger = Ledger::on(&url).await;
    let batches = 100;
    let base: u64 = std::env::var("BASE").unwrap().parse().unwrap();
    for kind in ["delivered", "accepted", "mixed"] { if std::env::var("KIND").is_ok_and(|k| k != kind) { continue }
        let work: Vec<_> = (0..batches)
            .map(|batch| {
                let facts: Vec<_> = (0..1000u64)
                    .map(|n| {
                        let number = base + batch * 1000 + n;
                        let a = first(number, webhook(u128::from(number % 50)));
                        match kind {
                            "delivered" => delivered(a),
                            "accepted" => {
                                let mut e = accepted(key(number), &[webhook(1)]);
                                if let proto_schemas::ledger::Fact::EventAccepted(e) = &mut e { e.event.payload = vec![b'x'; 1024].into(); }
                                e
                            }
                            _ => { let a = first(number + 100_000_000, webhook(u128::from(number % 50)));
                                match n % 10 { 0 => failed(a), 1 => deferred(a), _ => delivered(a) } }
                        }
                    })
                    .collect();
                messages(&facts)
            })
            .collect();
        let (wall, before) = (Instant::now(), cpu());
        for batch in work {
            ledger.recorder.record(batch).await;
        }
        let n = (batches * 1000) as f64;
        println!("{kind}: {:.1} us cpu/fact, {:.1} us wall/fact", (cpu() - before) * 1e6 / n, wall.elapsed().as_secs_f64() * 1e6 / n);
    }
}

//! What the process itself uses: processor time and memory, as the kernel tells it. Nothing where there is no `/proc`.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// `sysconf(_SC_CLK_TCK)`; the value of `USER_HZ` has been 100 on every Linux for userland's sake.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers `process.cpu.time` and `process.memory.usage`, read at every export.
pub(super) fn observe(meter: &Meter) {
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_callback(|observer| {
            let Some((user, system)) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) else { return };
            observer.observe(user, &[KeyValue::new("cpu.mode", "user")]);
            observer.observe(system, &[KeyValue::new("cpu.mode", "system")]);
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.usage")
        .with_unit("By")
        .with_callback(|observer| {
            if let Some(bytes) = read("/proc/self/status").as_deref().and_then(resident_bytes) {
                observer.observe(bytes, &[]);
            }
        })
        .build();
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Fields 14 and 15 of proc(5) `stat`; the second field may hold spaces and brackets of its own.
fn cpu_seconds(stat: &str) -> Option<(f64, f64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? / TICKS_PER_SECOND, next()? / TICKS_PER_SECOND))
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "42 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some((2.5, 0.5)));
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!((cpu_seconds(""), resident_bytes("")), (None, None));
    }
}

//! CPU time of processes, thread by thread, from /proc.

use std::collections::BTreeMap;

/// CPU seconds a process has used, by thread name.
#[derive(Clone, Debug, Default)]
pub struct Cpu(BTreeMap<String, f64>);

impl Cpu {
    /// As of now; empty where the system does not tell.
    pub fn of(pid: u32) -> Cpu {
        let mut seconds = BTreeMap::new();
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Cpu::default() };
        for task in tasks.flatten() {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            // Its first number: nanoseconds on a CPU.
            let on_cpu = read("schedstat").split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
            let used = on_cpu.map_or_else(|| ticks(&read("stat")), |ns| ns / 1e9);
            *seconds.entry(family(read("comm").trim())).or_insert(0.0) += used;
        }
        Cpu(seconds)
    }

    /// Used between `before` and this.
    pub fn since(&self, before: &Cpu) -> Cpu {
        let used = |(name, after): (&String, &f64)| (name.clone(), after - before.0.get(name).copied().unwrap_or(0.0));
        Cpu(self.0.iter().map(used).collect())
    }

    /// All threads together.
    pub fn seconds(&self) -> f64 {
        self.0.values().sum()
    }

    /// Microseconds of each family of threads for each of `count` messages.
    pub fn us_each(&self, count: u64) -> BTreeMap<String, f64> {
        let each = |seconds: f64| if count == 0 { 0.0 } else { seconds * 1e6 / count as f64 };
        self.0
            .iter()
            .filter(|(_, seconds)| **seconds > 0.0)
            .map(|(name, &seconds)| (name.clone(), each(seconds)))
            .collect()
    }
}

/// Seconds from a `stat` line: fields 14 and 15 are user and system time in ticks.
fn ticks(stat: &str) -> f64 {
    // The second field, the name, may hold spaces; it ends with the last parenthesis.
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Threads of one kind are numbered at their end.
fn family(name: &str) -> String {
    name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', '_', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_seen_under_its_family() {
        let before = Cpu::of(std::process::id());
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::Builder::new().name("busy-7".into()).spawn(move || {
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_millis(60) {}
            stopped.recv()
        });
        std::thread::sleep(std::time::Duration::from_millis(150));
        let used = Cpu::of(std::process::id()).since(&before);
        stop.send(()).unwrap();
        busy.unwrap().join().unwrap().unwrap();
        assert!(used.0["busy"] > 0.0, "{used:?}");
        assert!(used.seconds() >= used.0["busy"]);
    }

    #[test]
    fn names_and_ticks_are_read_as_the_kernel_writes_them() {
        assert_eq!([family("worker-12"), family("journal"), family("7")], ["worker", "journal", ""]);
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 1 0 0 0 100 50 0 0 20 0";
        let hz = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(ticks(stat), 150.0 / hz);
        assert_eq!(ticks("nonsense"), 0.0);
    }
}

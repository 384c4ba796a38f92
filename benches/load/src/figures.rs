//! What is printed.

/// Prints one figure.
pub(crate) fn print(name: &str, value: f64, unit: &str) {
    let digits = if value >= 100.0 { 0 } else { 2 };
    println!("{name}\t{value:.digits$}\t{unit}");
}

/// Samples in the order of their size.
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    /// The sample below which `share` of all lie; 0 when there is none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn largest(&self) -> f64 {
        self.quantile(1.0)
    }
}

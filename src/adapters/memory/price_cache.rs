//! Copies of prices within one process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::core::model::billing::Price;
use crate::ports::Fault;
use crate::ports::billing::PriceCache;
use crate::ports::runtime::Clock;

/// How long a copy may answer.
const COPY: Duration = Duration::from_secs(300);

struct Copy {
    product: String,
    prices: Vec<Price>,
    ends: Duration,
}

/// The copy of one product's prices.
pub struct MemoryPrices {
    copy: Mutex<Option<Copy>>,
    clock: Arc<dyn Clock>,
}

impl MemoryPrices {
    /// No copy yet; `clock` ends it.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { copy: Mutex::new(None), clock }
    }

    fn replace(&self, copy: Option<Copy>) {
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = copy;
    }
}

#[async_trait]
impl PriceCache for MemoryPrices {
    async fn find(&self, product: &str) -> Result<Option<Vec<Price>>, Fault> {
        let now = self.clock.elapsed();
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(copy.as_ref().filter(|copy| copy.product == product && now < copy.ends).map(|copy| copy.prices.clone()))
    }

    async fn keep(&self, product: &str, prices: &[Price]) -> Result<(), Fault> {
        let ends = self.clock.elapsed() + COPY;
        self.replace(Some(Copy { product: product.to_owned(), prices: prices.to_vec(), ends }));
        Ok(())
    }

    async fn forget(&self) -> Result<(), Fault> {
        self.replace(None);
        Ok(())
    }
}

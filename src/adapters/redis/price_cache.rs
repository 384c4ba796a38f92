//! Copies of prices that several processes, and the reference server, read and write.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bb8_redis::redis::cmd;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Redis;
use crate::core::model::billing::Price;
use crate::ports::billing::PriceCache;
use crate::ports::{Fault, FaultKind};

/// The copy under `cache:stripe:prices`, JSON text (contract `billing-stripe.md` §6.2); what cannot be read is a miss.
pub struct RedisPrices {
    /// Where the copy is.
    pub redis: Redis,
}

const COPY_SECONDS: u64 = 300;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Copy {
    product_id: String,
    prices: Vec<PriceCopy>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PriceCopy {
    id: String,
    unit_amount: Option<i64>,
    currency: String,
    product: String,
    active: bool,
    metadata: BTreeMap<String, String>,
    currency_options: IndexMap<String, OptionCopy>,
    // Ours: the reference neither writes nor reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionCopy {
    unit_amount: Option<i64>,
}

impl From<&Price> for PriceCopy {
    fn from(price: &Price) -> Self {
        let options = price.currency_options.iter();
        Self {
            id: price.id.clone(),
            unit_amount: price.unit_amount,
            currency: price.currency.clone(),
            product: price.product.clone(),
            active: price.active,
            metadata: price.metadata.clone(),
            currency_options: options
                .map(|(code, amount)| (code.clone(), OptionCopy { unit_amount: *amount }))
                .collect(),
            interval: price.interval.clone(),
        }
    }
}

impl From<PriceCopy> for Price {
    fn from(copy: PriceCopy) -> Self {
        let options = copy.currency_options.into_iter();
        Self {
            id: copy.id,
            unit_amount: copy.unit_amount,
            currency: copy.currency,
            product: copy.product,
            active: copy.active,
            metadata: copy.metadata,
            currency_options: options.map(|(code, option)| (code, option.unit_amount)).collect(),
            interval: copy.interval,
        }
    }
}

#[async_trait]
impl PriceCache for RedisPrices {
    #[tracing::instrument(name = "redis.price_cache.find", skip_all, err(level = "debug"))]
    async fn find(&self, product: &str) -> Result<Option<Vec<Price>>, Fault> {
        let mut get = cmd("GET");
        get.arg(self.redis.keys().prices());
        let copy: Option<Vec<u8>> = self.redis.query("redis.price_cache.find", &get).await?;
        let copy = copy.and_then(|text| serde_json::from_slice::<Copy>(&text).ok());
        let copy = copy.filter(|copy| copy.product_id == product);
        Ok(copy.map(|copy| copy.prices.into_iter().map(Price::from).collect()))
    }

    #[tracing::instrument(name = "redis.price_cache.keep", skip_all, err(level = "debug"))]
    async fn keep(&self, product: &str, prices: &[Price]) -> Result<(), Fault> {
        const OPERATION: &str = "redis.price_cache.keep";
        let copy = Copy { product_id: product.to_owned(), prices: prices.iter().map(PriceCopy::from).collect() };
        let text = serde_json::to_vec(&copy).map_err(|error| Fault::new(FaultKind::Corrupt, OPERATION, error))?;
        let mut set = cmd("SET");
        set.arg(self.redis.keys().prices()).arg(text).arg("EX").arg(COPY_SECONDS);
        self.redis.query(OPERATION, &set).await
    }

    #[tracing::instrument(name = "redis.price_cache.forget", skip_all, err(level = "debug"))]
    async fn forget(&self) -> Result<(), Fault> {
        let mut del = cmd("DEL");
        del.arg(self.redis.keys().prices());
        self.redis.query("redis.price_cache.forget", &del).await
    }
}

//! Copies of prices, over both adapters.

use std::sync::Arc;
use std::time::Duration;

use airi_server::adapters::memory::price_cache::MemoryPrices;
use airi_server::core::model::billing::Price;
use airi_server::ports::billing::PriceCache;
use indexmap::IndexMap;

use crate::world::HandClock;

fn price() -> Price {
    Price {
        id: "price_1".to_owned(),
        unit_amount: Some(300),
        currency: "usd".to_owned(),
        product: "prod".to_owned(),
        active: true,
        metadata: [("fluxAmount".to_owned(), "500".to_owned())].into(),
        currency_options: IndexMap::from([("usd".to_owned(), Some(300)), ("cny".to_owned(), None)]),
        interval: Some("month".to_owned()),
    }
}

async fn a_copy_is_for_one_product_until_it_is_forgotten(cache: &dyn PriceCache) {
    cache.forget().await.unwrap();
    assert_eq!(cache.find("prod").await.unwrap(), None);
    cache.keep("prod", &[price()]).await.unwrap();
    assert_eq!(cache.find("prod").await.unwrap(), Some(vec![price()]));
    assert_eq!(cache.find("other").await.unwrap(), None);
    cache.forget().await.unwrap();
    assert_eq!(cache.find("prod").await.unwrap(), None);
}

#[tokio::test]
async fn memory_keeps_a_copy() {
    let clock = Arc::new(HandClock::default());
    let cache = MemoryPrices::new(clock.clone());
    a_copy_is_for_one_product_until_it_is_forgotten(&cache).await;
    cache.keep("prod", &[price()]).await.unwrap();
    clock.turn(Duration::from_secs(300));
    assert_eq!(cache.find("prod").await.unwrap(), None);
}

#[cfg(feature = "live")]
#[tokio::test]
async fn redis_keeps_a_copy() {
    use airi_server::adapters::redis::price_cache::RedisPrices;
    use airi_server::adapters::redis::{Redis, RedisSettings};
    let url = std::env::vars().find(|(name, _)| name == "TEST_REDIS_URL").expect("TEST_REDIS_URL is needed").1;
    let namespace = format!("prices-{}:", std::process::id());
    let redis = Redis::new(&RedisSettings { namespace, ..RedisSettings::at(url) }).unwrap();
    a_copy_is_for_one_product_until_it_is_forgotten(&RedisPrices { redis }).await;
}

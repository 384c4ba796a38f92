//! What account deletion does at the provider, before anything is deleted here (contract §10).

use std::collections::BTreeSet;

use super::Billing;
use crate::core::error::{Code, Error};
use crate::core::model::ids::UserId;
use crate::ports::billing::PaymentError;

impl Billing {
    /// Stops money from leaving the user: ends every subscription at once, without refund, and closes what could still
    /// be paid. Repeating it is safe. Any failure means that the account MUST NOT be deleted yet; our copies are not
    /// touched.
    ///
    /// Without a secret key nothing can be ended; that is told to operators, and does not keep an account from being
    /// deleted.
    pub async fn close_account(&self, user: &UserId) -> Result<(), Error> {
        let mut subscriptions: BTreeSet<String> = self.repo.running_subscriptions(user).await?.into_iter().collect();
        let Some(gateway) = &self.gateway else {
            if !subscriptions.is_empty() {
                self.alert("subscriptions of a deleted account cannot be ended without a secret key", user.as_str());
            }
            return Ok(());
        };
        // A session that is paid after this question and before the next one begins a subscription the next one sees.
        for session in self.repo.open_checkouts(user).await? {
            gateway.expire_checkout(&session).await.map_err(kept)?;
        }
        if let Some(customer) = self.repo.customer_of_user(user).await? {
            subscriptions.extend(gateway.subscriptions(&customer).await.map_err(kept)?);
        }
        for subscription in subscriptions {
            gateway.cancel_subscription(&subscription).await.map_err(kept)?;
        }
        Ok(())
    }
}

/// The provider would go on taking money of somebody who is gone.
fn kept(error: PaymentError) -> Error {
    Error::new(Code::BadGateway).saying("Payment provider error").because(error)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::compose::testing;
    use crate::core::App;
    use crate::ports::mocks::{MockBillingRepo, MockPaymentGateway};
    use crate::ports::{Fault, FaultKind, Ports};

    /// What was asked of the provider, in order.
    type Asked = Arc<Mutex<Vec<String>>>;

    fn gateway(asked: &Asked, ends: bool) -> MockPaymentGateway {
        let mut gateway = MockPaymentGateway::new();
        let note = asked.clone();
        gateway.expect_expire_checkout().returning(move |session| {
            note.lock().unwrap().push(format!("expire {session}"));
            Ok(())
        });
        gateway.expect_subscriptions().returning(|_| Ok(vec!["sub_1".to_owned(), "sub_2".to_owned()]));
        let note = asked.clone();
        gateway.expect_cancel_subscription().returning(move |subscription| {
            note.lock().unwrap().push(format!("cancel {subscription}"));
            let away = || PaymentError::Failed(Fault::new(FaultKind::Unavailable, "stripe", "away"));
            if ends { Ok(()) } else { Err(away()) }
        });
        gateway
    }

    async fn app(gateway: Option<MockPaymentGateway>) -> App {
        let mut repo = MockBillingRepo::new();
        repo.expect_running_subscriptions().returning(|_| Ok(vec!["sub_1".to_owned()]));
        repo.expect_open_checkouts().returning(|_| Ok(vec!["cs_1".to_owned()]));
        repo.expect_customer_of_user().returning(|_| Ok(Some("cus_1".to_owned())));
        let payments = gateway.map(|gateway| Arc::new(gateway) as Arc<dyn crate::ports::billing::PaymentGateway>);
        let ports = Ports { payments, billing: Arc::new(repo), ..testing::ports().await.unwrap() };
        App::new(ports, testing::policies())
    }

    #[tokio::test]
    async fn what_could_still_be_paid_is_closed_before_every_subscription_ends_once() {
        let asked = Asked::default();
        app(Some(gateway(&asked, true))).await.billing.close_account(&UserId::new("u")).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), ["expire cs_1", "cancel sub_1", "cancel sub_2"]);
    }

    #[tokio::test]
    async fn the_first_failure_is_the_last_step() {
        let asked = Asked::default();
        let app = app(Some(gateway(&asked, false))).await;
        let refused = app.billing.close_account(&UserId::new("u")).await.unwrap_err();
        assert_eq!(refused.code, Code::BadGateway);
        assert_eq!(*asked.lock().unwrap(), ["expire cs_1", "cancel sub_1"]);
    }

    #[tokio::test]
    async fn without_a_key_an_account_can_be_deleted_all_the_same() {
        app(None).await.billing.close_account(&UserId::new("u")).await.unwrap();
    }
}

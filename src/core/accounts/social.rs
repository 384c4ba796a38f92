//! Sign-in with an account elsewhere, and adding one to an account (contract `auth.md` §6.5).

use std::sync::Arc;

use super::Device;
use super::refusal::{Denied, Refusal};
use super::sign_in::{SignIn, address_mark, errand};
use crate::core::error::{Code, Error};
use crate::core::model::accounts::{Account, Creation, Email, Session};
use crate::core::model::fact::Fact;
use crate::core::model::identity::{Proof, Proving};
use crate::core::model::ids::{IdentityId, UserId};
use crate::core::model::principal::Principal;
use crate::core::model::proofs::Verification;
use crate::core::model::social::{Arrived, Flow, Link, Linking, Provider, STATE_LIFETIME, SocialIdentity, Unknown};
use crate::core::model::texts::Language;
use crate::ports::Fault;
use crate::ports::social::{Departure, Return, SocialLogin, SocialRepo};

/// Other accounts of people.
pub struct Social {
    /// The ways in.
    pub sign_in: Arc<SignIn>,
    /// The providers.
    pub providers: Arc<dyn SocialLogin>,
    /// What we keep of them.
    pub repo: Arc<dyn SocialRepo>,
}

/// What a flow is begun with; every address judged already.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Where it leads on success; our own front page when absent.
    pub callback: Option<String>,
    /// Where it leads on failure.
    pub error: Option<String>,
    /// Where it leads when it makes an account.
    pub new_user: Option<String>,
    /// Asked for besides the usual.
    pub scopes: Vec<String>,
    /// Which account to offer.
    pub login_hint: Option<String>,
    /// Whether the browser will bring the state's cookie back.
    pub cookie_bound: bool,
}

/// A begun flow.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub url: String,
    /// Comes back from there.
    pub state: String,
}

/// What a browser came back with.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The state of the flow.
    pub state: Option<String>,
    /// The state in the browser's cookie, when that is ours.
    pub cookie: Option<String>,
    /// The code.
    pub code: Option<String>,
    /// The provider's word for its refusal.
    pub error: Option<String>,
    /// More of its words.
    pub description: Option<String>,
}

/// Who came back, in what.
#[derive(Clone, Debug)]
pub struct Traveller {
    /// What they use.
    pub device: Device,
    /// What they read.
    pub language: Language,
}

/// Where a flow ends.
#[derive(Clone, Debug)]
pub struct Landing {
    /// Where the browser goes.
    pub to: String,
    /// What went wrong, and more words about it.
    pub error: Option<(String, Option<String>)>,
    /// The session it opened.
    pub session: Option<Session>,
}

/// The words of the contract for what went wrong.
enum Mishap {
    /// One of them.
    Told(&'static str),
    /// A failure of ours.
    Failed(Error),
}

impl From<Error> for Mishap {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Fault> for Mishap {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.into())
    }
}

impl Social {
    /// Sends a browser to a provider. With `caller` the identity is added to their account.
    pub async fn begin(&self, name: &str, caller: Option<&Principal>, wish: Wish) -> Result<Begun, Denied> {
        let provider = Provider::named(name).filter(|provider| self.providers.is_known(*provider));
        let provider = provider.ok_or(Refusal::ProviderNotFound)?;
        let accounts = &self.sign_in.accounts;
        let (now, state) = (accounts.clock.now(), accounts.ids.token());
        let verifier: String = (0..4).map(|_| accounts.ids.token()).collect();
        let departure = Departure {
            state: &state,
            verifier: &verifier,
            redirect_uri: &self.redirect_uri(provider),
            scopes: &wish.scopes,
            login_hint: wish.login_hint.as_deref(),
        };
        let url = self.providers.address(provider, &departure).ok_or(Refusal::ProviderNotFound)?;
        let link = caller
            .map(|caller| Link { user_id: caller.user().to_string(), email: caller.account.email.as_str().to_owned() });
        let flow = Flow {
            callback_url: wish.callback.unwrap_or_else(|| self.sign_in.letters.origin.clone()),
            code_verifier: verifier,
            error_url: wish.error,
            new_user_url: wish.new_user,
            link,
            expires_at: (now + STATE_LIFETIME).timestamp_millis(),
            oauth_state: state.clone(),
            cookie_bound: wish.cookie_bound,
        };
        let row = Verification {
            id: accounts.ids.token(),
            identifier: state.clone(),
            value: serde_json::to_string(&flow).map_err(|error| Error::new(Code::Internal).because(error))?,
            expires_at: now + STATE_LIFETIME,
            created_at: now,
        };
        self.sign_in.verifications.issue(&row).await?;
        Ok(Begun { url, state })
    }

    /// Takes a browser back from a provider. The state is used up whatever comes of it.
    pub async fn finish(&self, name: &str, answer: Answer, traveller: &Traveller) -> Result<Landing, Error> {
        let Some(state) = answer.state.as_deref() else { return Ok(self.astray("state_not_found")) };
        let now = self.sign_in.accounts.clock.now();
        let row = self.sign_in.verifications.redeem(state, now).await?;
        let flow = row.and_then(|row| serde_json::from_str::<Flow>(&row.value).ok());
        let Some(flow) = flow else { return Ok(self.astray("please_restart_the_process")) };
        let is_same_browser = !flow.cookie_bound || answer.cookie.as_deref() == Some(state);
        if flow.oauth_state != state || !is_same_browser {
            return Ok(self.astray("state_mismatch"));
        }
        match self.arrive(name, &answer, &flow, traveller).await {
            Ok((to, session)) => Ok(Landing { to, error: None, session }),
            Err(Mishap::Failed(error)) => Err(error),
            Err(Mishap::Told(code)) => {
                let provider_says = answer.error.filter(|_| code == PROVIDER_REFUSED);
                let error = match provider_says {
                    Some(word) => (word, answer.description),
                    None => (code.to_owned(), None),
                };
                Ok(Landing { to: self.error_page(&flow), error: Some(error), session: None })
            }
        }
    }

    async fn arrive(
        &self,
        name: &str,
        answer: &Answer,
        flow: &Flow,
        traveller: &Traveller,
    ) -> Result<(String, Option<Session>), Mishap> {
        if answer.error.is_some() {
            return Err(Mishap::Told(PROVIDER_REFUSED));
        }
        let code = answer.code.as_deref().filter(|code| !code.is_empty()).ok_or(Mishap::Told("no_code"))?;
        let provider = Provider::named(name).filter(|provider| self.providers.is_known(*provider));
        let provider = provider.ok_or(Mishap::Told("oauth_provider_not_found"))?;
        let redirect_uri = self.redirect_uri(provider);
        let returned = Return { code, verifier: &flow.code_verifier, redirect_uri: &redirect_uri };
        let arrived = self.providers.exchange(provider, &returned).await.map_err(|unknown| match unknown {
            Unknown::InvalidCode => Mishap::Told("invalid_code"),
            Unknown::NoUserInfo => Mishap::Told("unable_to_get_user_info"),
        })?;
        let identity = SocialIdentity {
            id: IdentityId::new(self.sign_in.accounts.ids.token()),
            provider,
            account_id: arrived.profile.account_id.clone(),
            tokens: arrived.tokens.clone(),
            at: self.sign_in.accounts.clock.now(),
        };
        if let Some(link) = &flow.link {
            self.add(link, &arrived, &identity).await?;
            return Ok((flow.callback_url.clone(), None));
        }
        let (user, is_new) = self.recognise(&arrived, &identity, flow, traveller).await?;
        let session = self.sign_in.accounts.open_for(&user, &traveller.device, true).await?;
        let new_user = flow.new_user_url.clone().filter(|_| is_new);
        Ok((new_user.unwrap_or_else(|| flow.callback_url.clone()), Some(session)))
    }

    /// Adds an identity to the account that asked for it.
    async fn add(&self, link: &Link, arrived: &Arrived, identity: &SocialIdentity) -> Result<(), Mishap> {
        let same = arrived.profile.email.as_ref().is_some_and(|email| email.as_str() == link.email.to_lowercase());
        if !same {
            return Err(Mishap::Told("email_doesn't_match"));
        }
        match self.repo.link(&UserId::new(link.user_id.clone()), identity).await? {
            Linking::Linked | Linking::Known => Ok(()),
            Linking::Foreign(_) => Err(Mishap::Told("account_already_linked_to_different_user")),
            Linking::Gone => Err(Mishap::Told("unable_to_link_account")),
        }
    }

    /// The person behind an identity: its owner, else whoever has its address, else somebody new.
    async fn recognise(
        &self,
        arrived: &Arrived,
        identity: &SocialIdentity,
        flow: &Flow,
        traveller: &Traveller,
    ) -> Result<(UserId, bool), Mishap> {
        let accounts = &self.sign_in.accounts;
        // Again when somebody was faster: a second look finds what they made.
        for _ in 0..2 {
            if let Some(owner) = self.repo.find_owner(identity.provider, &identity.account_id).await?
                && let Some(account) = accounts.accounts.find(&owner).await?
            {
                self.prove_if_same(&account, arrived).await?;
                self.repo.link(&owner, identity).await?;
                return Ok((owner, false));
            }
            let email = arrived.profile.email.clone().ok_or(Mishap::Told("email_not_found"))?;
            if let Some(account) = accounts.accounts.find_by_email(&email).await? {
                if !arrived.profile.email_verified {
                    return Err(Mishap::Told("account_not_linked"));
                }
                self.prove_if_same(&account, arrived).await?;
                match self.repo.link(&account.id, identity).await? {
                    Linking::Linked | Linking::Known => return Ok((account.id, false)),
                    Linking::Foreign(_) | Linking::Gone => continue,
                }
            }
            if let Some(user) = self.create(email, arrived, identity, flow, traveller).await? {
                return Ok((user, true));
            }
        }
        Err(Mishap::Told("unable_to_create_user"))
    }

    /// A first proof ends a password nobody proved (contract F-04).
    async fn prove_if_same(&self, account: &Account, arrived: &Arrived) -> Result<(), Mishap> {
        let profile = &arrived.profile;
        let same = profile.email.as_ref().is_some_and(|email| email.as_str() == account.email.as_str().to_lowercase());
        if account.email_verified || !same || !profile.email_verified {
            return Ok(());
        }
        let accounts = &self.sign_in.accounts;
        let proving = accounts.accounts.prove_email(&account.id, Proof::Elsewhere, accounts.clock.now()).await?;
        if let Proving::Newly(closed) = proving {
            accounts.forget_closed(&closed).await;
        }
        Ok(())
    }

    async fn create(
        &self,
        email: Email,
        arrived: &Arrived,
        identity: &SocialIdentity,
        flow: &Flow,
        traveller: &Traveller,
    ) -> Result<Option<UserId>, Mishap> {
        let profile = &arrived.profile;
        let (name, image) = (profile.name.clone(), profile.image.clone());
        let account = self.sign_in.accounts.new_account(name, email.clone(), image, profile.email_verified);
        let mark = address_mark(&self.sign_in.letters, &email);
        self.sign_in.erasures.withhold_grant(&account.id, &mark, account.created_at).await?;
        if self.repo.create_with(&account, identity).await? == Creation::AddressTaken {
            return Ok(None);
        }
        self.sign_in.accounts.journal.record(Fact::UserRegistered { user: account.id.clone() });
        if !profile.email_verified {
            let callback = Some(flow.callback_url.clone());
            self.sign_in.letters.ask_for_proof(errand(&email, callback, traveller.language)).await;
        }
        Ok(Some(account.id))
    }

    fn redirect_uri(&self, provider: Provider) -> String {
        format!("{}/api/auth/callback/{}", self.sign_in.letters.origin, provider.wire())
    }

    /// An end without a flow to say where.
    fn astray(&self, code: &str) -> Landing {
        let to = format!("{}/api/auth/error", self.sign_in.letters.origin);
        Landing { to, error: Some((code.to_owned(), None)), session: None }
    }

    /// Where a failure is told: where the flow says, else where it came from, unless that would only send the browser
    /// on (contract F-15).
    fn error_page(&self, flow: &Flow) -> String {
        let page = || format!("{}/api/auth/error", self.sign_in.letters.origin);
        if let Some(url) = &flow.error_url {
            return url.clone();
        }
        let leads_on = flow.callback_url.contains("/api/auth/") || flow.callback_url == self.sign_in.letters.origin;
        if leads_on { page() } else { flow.callback_url.clone() }
    }
}

/// Stands for the provider's own word.
const PROVIDER_REFUSED: &str = "provider_refused";

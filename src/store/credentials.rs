//! Which credentials the chain finds, told without secrets.

use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_credential_types::provider::ProvideCredentials;

use super::connect::{StoreOptions, load};
use super::{errors, trust};
use crate::error::{Error, Result};

/// Shorter key ids are told not at all: their end would be most of them.
const TOLD_FROM: usize = 16;

/// What there is to say of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCredentials {
    /// Who gave them, as a part of a sentence.
    pub provider: String,
    /// The last four characters of the access key's id.
    pub key_ends_in: Option<String>,
}

/// Asks the chain as the first request of a mount does. `None` when requests are not signed.
///
/// # Errors
/// `Credentials` when there are none; `Tls` for a bad `AWS_CA_BUNDLE`.
pub async fn find_credentials(options: &StoreOptions) -> Result<Option<FoundCredentials>> {
    if options.no_sign_request {
        return Ok(None);
    }
    let sdk = load(options, trust::of_environment()?).await;
    let chain = sdk.credentials_provider().ok_or_else(|| Error::Credentials("there is no provider".to_owned()))?;
    match chain.provide_credentials().await {
        Ok(found) => Ok(Some(told(&found, options.profile.as_deref()))),
        Err(error) => Err(Error::Credentials(errors::all(&error))),
    }
}

fn told(found: &Credentials, profile: Option<&str>) -> FoundCredentials {
    let features = found.get_property::<Vec<Feature>>().map_or(&[][..], Vec::as_slice);
    let id = found.access_key_id();
    let end = id.char_indices().rev().nth(3).map(|(at, _)| id[at..].to_owned());
    FoundCredentials { provider: provider(features, profile), key_ends_in: end.filter(|_| id.len() >= TOLD_FROM) }
}

/// The SDK notes each provider that had a part in them, the one that was asked last behind.
fn provider(features: &[Feature], profile: Option<&str>) -> String {
    let has = |feature: Feature| features.contains(&feature);
    let by_profile = has(Feature::CredentialsProfile)
        || has(Feature::CredentialsProfileSourceProfile)
        || has(Feature::CredentialsProfileNamedProvider)
        || has(Feature::CredentialsProfileSso)
        || has(Feature::CredentialsProfileProcess);
    let kind = if has(Feature::CredentialsStsAssumeRole) {
        "an assumed role"
    } else if has(Feature::CredentialsStsAssumeRoleWebId)
        || has(Feature::CredentialsEnvVarsStsWebIdToken)
        || has(Feature::CredentialsProfileStsWebIdToken)
    {
        "a web identity token"
    } else if has(Feature::CredentialsSso) || has(Feature::CredentialsProfileSso) {
        "SSO"
    } else if has(Feature::CredentialsProcess) || has(Feature::CredentialsProfileProcess) {
        "a credential process"
    } else if has(Feature::CredentialsHttp) {
        "the container credentials service (ECS, EKS)"
    } else if has(Feature::CredentialsImds) {
        "the instance metadata service (IMDS)"
    } else if has(Feature::CredentialsEnvVars) {
        return "the environment".to_owned();
    } else if by_profile {
        "its keys"
    } else {
        "a provider that does not name itself"
    };
    if !by_profile {
        return kind.to_owned();
    }
    let named = profile.map(str::to_owned).or_else(|| std::env::var("AWS_PROFILE").ok());
    let name = named.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
    format!("the profile {name} of the shared files, by {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_its_words() {
        for (features, words) in [
            (&[Feature::CredentialsEnvVars][..], "the environment"),
            (&[Feature::CredentialsProfile], "the profile work of the shared files, by its keys"),
            (&[Feature::CredentialsProfile, Feature::CredentialsSso], "the profile work of the shared files, by SSO"),
            (&[Feature::CredentialsStsAssumeRole, Feature::CredentialsEnvVars], "an assumed role"),
            (&[Feature::CredentialsProfileStsWebIdToken], "a web identity token"),
            (&[Feature::CredentialsProcess], "a credential process"),
            (&[Feature::CredentialsHttp], "the container credentials service (ECS, EKS)"),
            (&[Feature::CredentialsImds], "the instance metadata service (IMDS)"),
            (&[], "a provider that does not name itself"),
        ] {
            assert_eq!(provider(features, Some("work")), words, "{features:?}");
        }
    }

    #[test]
    fn no_more_than_the_end_of_a_long_key_is_told() {
        let of = |id: &str| told(&Credentials::new(id, "hush-hush", Some("token".into()), None, "t"), None).key_ends_in;
        assert_eq!(of("AKIDEXAMPLE00001234").as_deref(), Some("1234"));
        assert_eq!(of("short"), None);
    }
}

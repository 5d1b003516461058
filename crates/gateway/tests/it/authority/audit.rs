//! The audit log: one line for each event of a token, and no secret in any line of the log.

use secrecy::{ExposeSecret, SecretString};
use voxline_gateway::authority::{Authority, NewClient, Policy, Refreshing, Scope, Terms};

use voxline_fixtures::gateway::authority::{authority, clock};
use voxline_fixtures::gateway::log::Log;

/// Performs every audited action on a project and its client. Returns the secrets that were created.
fn everything(authority: &Authority, client: &NewClient) -> Vec<SecretString> {
    let id = client.client_id.as_str();
    let (typed, wrong) = ("a name\nvoxline::audit: typed", SecretString::from("vxc_typed"));
    let granted = authority.client_credentials(id, &client.client_secret).unwrap();
    let refreshed = authority.refresh(id, granted.refresh_token.clone()).unwrap();
    let again = authority.refresh(id, refreshed.refresh_token.clone()).unwrap();
    // The token's successor was used already, so that all tokens of the grant end.
    authority.refresh(id, granted.refresh_token.clone()).unwrap_err();
    authority.client_credentials(typed, &wrong).unwrap_err();
    authority.client_credentials(id, &wrong).unwrap_err();
    authority.refresh(typed, wrong.clone()).unwrap_err();
    authority.check(wrong.expose_secret()).unwrap_err();
    authority.authorise(wrong.expose_secret(), Scope::Tts, None).unwrap_err();
    let scopes = [Scope::Tts].into_iter().collect();
    let service = authority.create_service_token("a", Terms { scopes, ..Terms::default() }).unwrap();
    authority.authorise(service.token.expose_secret(), Scope::Tts, None).unwrap();
    authority.authorise(service.token.expose_secret(), Scope::AsrShort, None).unwrap_err();
    authority.revoke_token(&service.id).unwrap();
    let last = authority.client_credentials(id, &client.client_secret).unwrap();
    authority.revoke_shown(id, &last.access_token).unwrap();
    authority.revoke_shown(id, &wrong).unwrap();
    authority.set_active("a", false).unwrap();
    authority.set_active("a", true).unwrap();
    authority.revoke_client(id).unwrap();
    authority.revoke_project("a").unwrap();
    let mut secrets = vec![client.client_secret.clone(), service.token];
    for granted in [granted, refreshed, again, last] {
        secrets.extend([granted.access_token, granted.refresh_token]);
    }
    secrets
}

#[test]
fn everything_is_told_once_and_no_secret_ever() {
    let project = || {
        let (authority, client) = authority(&clock());
        let policy = Policy { refreshing: Refreshing::Rotate, ..Policy::default() };
        (authority.with_policy(policy), client)
    };
    // Run once without a subscriber: a log statement that is first reached while another test logs may miss
    // that a subscriber listens.
    let (unheard, client) = project();
    everything(&unheard, &client);
    let (authority, client) = project();
    let mut secrets = Vec::new();
    let log = Log::of(|| secrets = everything(&authority, &client));
    let audit = |what: &str| {
        let lines = log.lines().filter(|line| line.contains("voxline::audit") && line.contains(what));
        lines.count()
    };
    // Two refresh tokens, four access tokens and one service token.
    assert_eq!(audit(": minted"), 7, "{log}");
    assert_eq!(audit(": refused"), 6, "{log}");
    assert_eq!(audit(": revoked"), 5, "{log}");
    assert_eq!((audit(": disabled"), audit(": enabled")), (1, 1), "{log}");
    assert_eq!(audit("INFO"), 20, "{log}");
    assert_eq!(audit("its successor used"), 1, "{log}");
    assert_eq!(audit("refresh token reused"), 1, "{log}");
    for secret in secrets {
        assert!(!log.contains(secret.expose_secret()), "{log}");
    }
    for typed in ["typed", "vxc_", "vxr_", "vxa_", "vxs_"] {
        assert!(!log.contains(typed), "{log}");
    }
}

#[test]
fn addresses_are_told_unless_the_policy_forbids_it() {
    for audit_addresses in [true, false] {
        let (authority, client) = authority(&clock());
        let authority = authority.with_policy(Policy { audit_addresses, ..Policy::default() });
        let granted = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
        let token = granted.access_token.expose_secret();
        let terms = Terms { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Terms::default() };
        let service = authority.create_service_token("a", terms).unwrap().token;
        let refuse = || {
            let peer = |text: &str| Some(text.parse().unwrap());
            authority.authorise("wrong", Scope::Tts, peer("198.51.100.7")).unwrap_err();
            // An IPv4 client of a listener for both families.
            let mapped = peer("::ffff:198.51.100.7");
            authority.authorise(service.expose_secret(), Scope::Tts, mapped).unwrap_err();
            authority.authorise(token, Scope::Tts, peer("198.51.100.7")).unwrap();
        };
        // As above, run once without a subscriber.
        refuse();
        let log = Log::of(refuse);
        let told = log.lines().filter(|line| line.contains("voxline::audit")).count();
        assert_eq!(told, 2, "{log}");
        let named = log.lines().filter(|line| line.contains("peer=198.51.100.7")).count();
        assert_eq!(named, if audit_addresses { 2 } else { 0 }, "{log}");
        assert_eq!(log.contains("198.51.100.7"), audit_addresses, "{log}");
    }
}

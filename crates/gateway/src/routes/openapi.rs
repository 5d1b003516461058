//! `GET /openapi.json`: an OpenAPI description of the HTTP API. A path that is added to the API must be
//! added here; a test checks that.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};

pub(crate) const PATH: &str = "/openapi.json";
const DESCRIPTION: &str = include_str!("openapi.json");

pub(crate) async fn describe() -> Response {
    let mut response = Response::new(Body::from(DESCRIPTION));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use axum::extract::ConnectInfo;
    use http::{Request, StatusCode};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use serde_json::Value;

    use super::*;
    use crate::authority::Authority;
    use crate::dialects;
    use crate::gateway::{Engines, Gateway};
    use crate::options::{Dialect, Options};
    use crate::routes::{guarded_routes, open_routes, router};
    use voxline_support::clock::SystemClock;

    /// Paths that serve the people and machines that run the gateway, and are not part of the API.
    const NOT_OF_THE_API: &[&str] = &["/", "/metrics", "/console"];

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    /// Returns the methods of each described path.
    fn described() -> BTreeMap<String, BTreeSet<String>> {
        let description = description();
        let paths = description["paths"].as_object().unwrap();
        let methods =
            |path: &Value| path.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
        paths.iter().map(|(path, operations)| (path.clone(), methods(operations))).collect()
    }

    #[tokio::test]
    async fn the_description_lists_exactly_the_routes() {
        let options = Options { demo: true, ..Options::default() };
        let routes = guarded_routes(&options).into_iter().chain(open_routes(&options));
        let paths = routes.map(|(path, _)| path).chain(Dialect::ALL.into_iter().flat_map(dialects::paths));
        let authority = Authority::in_memory(Duration::ZERO, Arc::new(SystemClock::new())).unwrap();
        let gateway = Arc::new(Gateway::new(authority, Engines::default(), options));
        let router = TowerToHyperService::new(router(gateway));
        let mut routed = BTreeMap::new();
        for path in paths {
            if NOT_OF_THE_API.contains(&path) || path.starts_with("/console/") {
                continue;
            }
            // The answer to an unknown method lists the methods of the path.
            let mut probe = Request::builder().method("PROBE").uri(path).body(Body::empty()).unwrap();
            probe.extensions_mut().insert(ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
            let refused = router.call(probe).await.unwrap();
            assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            let allowed = refused.headers()[header::ALLOW].to_str().unwrap().split(',');
            // A path with GET also has HEAD.
            let methods: BTreeSet<String> =
                allowed.filter(|method| *method != "HEAD").map(str::to_owned).collect();
            assert!(routed.insert(path.to_owned(), methods).is_none(), "{path}");
        }
        assert_eq!(routed, described());
    }

    #[test]
    fn every_reference_resolves_and_every_component_is_used() {
        let description = description();
        let mut referred = BTreeSet::new();
        let mut left = vec![&description];
        while let Some(value) = left.pop() {
            if let Some(reference) = value.get("$ref") {
                let pointer = reference.as_str().unwrap().trim_start_matches('#').to_owned();
                assert!(description.pointer(&pointer).is_some(), "{pointer}");
                referred.insert(pointer);
            }
            left.extend(value.as_object().into_iter().flatten().map(|(_, value)| value));
            left.extend(value.as_array().into_iter().flatten());
        }
        for kind in ["schemas", "responses", "parameters", "headers"] {
            for name in description["components"][kind].as_object().unwrap().keys() {
                assert!(
                    referred.contains(&format!("/components/{kind}/{name}")),
                    "{kind} {name} is not used"
                );
            }
        }
    }
}

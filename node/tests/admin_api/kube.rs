//! The Kubernetes-style API as a table: who asks for what, and what comes back.

use serde_json::{Value, json};

use crate::world::{ADMIN, ALICE, BOB, MAAS, SUBSCRIPTIONS, World, subscription};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn who_may_ask_for_what() {
    let world = World::start().await;
    world.furnish().await;
    let key = {
        let answer = world.ask("POST", "/maas-api/v1/api-keys", ALICE, r#"{"name":"k"}"#).await;
        answer.json()["key"].as_str().unwrap().to_owned()
    };
    let models = format!("{MAAS}/maasmodelrefs");
    let one_model = format!("{MAAS}/namespaces/llm/maasmodelrefs/gpt");
    let everywhere = format!("{MAAS}/maassubscriptions");
    let access = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let may_list = r#"{"spec":{"resourceAttributes":{"verb":"list","group":"maas.opendatahub.io","resource":"maassubscriptions"}}}"#;
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let cases = [
        // Nobody, or not really somebody.
        ("GET", "/api", "", "", 401, "\"reason\":\"Unauthorized\""),
        ("GET", "/api", "nonsense", "", 401, "\"reason\":\"Unauthorized\""),
        ("GET", "/api", &key, "", 401, "API keys are for models"),
        ("GET", "/nonsense", "", "", 401, "Unauthorized"),
        // Discovery is for every user.
        ("GET", "/version", ALICE, "", 200, "\"major\":\"1\""),
        ("GET", "/api", ALICE, "", 200, "\"versions\":[\"v1\"]"),
        ("GET", "/apis", ALICE, "", 200, "maas.opendatahub.io/v1alpha1"),
        ("GET", "/apis/user.openshift.io", ALICE, "", 200, "\"kind\":\"APIGroup\""),
        ("GET", "/api/v1", ALICE, "", 200, "serviceaccounts/token"),
        ("GET", MAAS, ALICE, "", 200, "\"singularName\":\"maassubscription\""),
        ("GET", "/openapi/v2", ALICE, "", 200, "\"swagger\":\"2.0\""),
        ("GET", "/openapi/v3", ALICE, "", 200, "apis/maas.opendatahub.io/v1alpha1"),
        ("GET", "/openapi/v3/apis/maas.opendatahub.io/v1alpha1", ALICE, "", 200, "fieldValidation"),
        ("POST", "/api", ALICE, "{}", 405, "MethodNotAllowed"),
        // So are models, to read, and questions about oneself.
        ("GET", &models, ALICE, "", 200, "\"kind\":\"MaaSModelRefList\""),
        ("GET", &one_model, BOB, "", 200, "\"kind\":\"MaaSModelRef\""),
        ("DELETE", &one_model, ALICE, "", 403, "User \\\"alice\\\" cannot delete resource \\\"maasmodelrefs\\\""),
        ("POST", whoami, ALICE, "{}", 201, "\"username\":\"alice\""),
        ("POST", access, ALICE, may_list, 201, "\"allowed\":false"),
        ("POST", access, ADMIN, may_list, 201, "\"allowed\":true"),
        ("POST", access, ALICE, "{}", 400, "exactly one of"),
        ("GET", access, ALICE, "", 405, "MethodNotAllowed"),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            ALICE,
            "{}",
            201,
            "\"resources\":[\"maasmodelrefs\"]",
        ),
        // Everything else is for administrators.
        (
            "GET",
            &everywhere,
            ALICE,
            "",
            403,
            "cannot list resource \\\"maassubscriptions\\\" in API group \\\"maas.opendatahub.io\\\" at the cluster scope",
        ),
        ("GET", SUBSCRIPTIONS, ALICE, "", 403, "in the namespace \\\"models-as-a-service\\\""),
        ("POST", SUBSCRIPTIONS, ALICE, "{}", 403, "cannot create"),
        ("GET", "/api/v1/namespaces/default", ALICE, "", 403, "cannot get"),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/x/token", ALICE, "{}", 403, "serviceaccounts/token"),
        ("GET", SUBSCRIPTIONS, ADMIN, "", 200, "calculus-dev"),
        // What is not here, and what paths must not do.
        ("GET", "/api/v1/pods", ADMIN, "", 404, "could not find the requested resource"),
        ("GET", "/api/v1/namespaces/..%2f..%2fmetrics", ADMIN, "", 404, "could not find the requested resource"),
        ("GET", "/api/v1/namespaces/a%00b", ADMIN, "", 404, "namespaces \\\"a\\\\0b\\\" not found"),
        ("GET", "/api/v1/namespaces/absent", ADMIN, "", 404, "namespaces \\\"absent\\\" not found"),
        ("DELETE", SUBSCRIPTIONS, ADMIN, "", 405, "MethodNotAllowed"),
        ("GET", "/api/v1/namespaces?fieldSelector=spec.x=1", ADMIN, "", 400, "field label not supported"),
        ("GET", "/api/v1/namespaces?resourceVersion=99999999", ADMIN, "", 504, "Too large resource version"),
        ("GET", "/api/v1/namespaces?resourceVersion=99999999&resourceVersionMatch=Exact", ADMIN, "", 410, "Expired"),
    ];
    for (method, path, token, body, status, part) in cases {
        let answer = world.ask(method, path, token, body).await;
        assert_eq!(answer.status, status, "{method} {path} as {token}: {}", answer.text);
        assert!(answer.text.contains(part), "{method} {path} as {token}: {}", answer.text);
        if status >= 400 {
            let body = answer.json();
            assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(status)), "{method} {path}");
        }
    }
    let answer = world.ask_with("GET", "/api/v1/namespaces", ADMIN, "", &[("impersonate-user", "alice")]).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
}

#[tokio::test]
async fn manifests_are_judged_as_in_kubernetes() {
    let world = World::start().await;
    world.furnish().await;
    let with = |change: Value| {
        let mut object = subscription("x", 0, 1000);
        merge(&mut object, change);
        object.to_string()
    };
    let strict = format!("{SUBSCRIPTIONS}?fieldValidation=Strict");
    let cases = [
        (SUBSCRIPTIONS, "{".to_owned(), 400, "not valid JSON"),
        (SUBSCRIPTIONS, String::new(), 400, "the body is empty"),
        (SUBSCRIPTIONS, "[]".to_owned(), 400, "not a JSON object"),
        (SUBSCRIPTIONS, r#"{"kind":"a","kind":"b"}"#.to_owned(), 400, "duplicate field"),
        (SUBSCRIPTIONS, "[".repeat(300), 400, "recursion limit"),
        (SUBSCRIPTIONS, with(json!({"kind": "MaaSAuthPolicy"})), 400, "this path takes \\\"MaaSSubscription\\\""),
        (SUBSCRIPTIONS, with(json!({"apiVersion": "v1"})), 400, "this path takes \\\"maas.opendatahub.io/v1alpha1\\\""),
        (SUBSCRIPTIONS, with(json!({"metadata": {"namespace": "other"}})), 400, "does not match the namespace"),
        (
            SUBSCRIPTIONS,
            with(json!({"metadata": {"resourceVersion": "7"}})),
            400,
            "should not be set on objects to be created",
        ),
        (
            SUBSCRIPTIONS,
            with(json!({"metadata": {"labels": {"a": 1}}})),
            400,
            "metadata.labels is not a map of strings",
        ),
        (SUBSCRIPTIONS, with(json!({"metadata": {"name": null}})), 422, "name or generateName is required"),
        (SUBSCRIPTIONS, with(json!({"metadata": {"name": "Not A Name"}})), 422, "\"field\":\"metadata.name\""),
        (
            SUBSCRIPTIONS,
            with(json!({"spec": {"modelRefs": []}})),
            422,
            "MaaSSubscription.maas.opendatahub.io \\\"x\\\" is invalid: spec.modelRefs",
        ),
        (
            SUBSCRIPTIONS,
            with(
                json!({"spec": {"modelRefs": [{"name": "m", "namespace": "n", "tokenRateLimits": [{"limit": 1, "window": "1d"}]}]}}),
            ),
            422,
            "\"field\":\"spec.modelRefs[0].tokenRateLimits[0].window\"",
        ),
        (SUBSCRIPTIONS, with(json!({"metadata": {"name": "calculus-dev"}})), 409, "AlreadyExists"),
        (SUBSCRIPTIONS, with(json!({"spec": {"colour": "red"}})), 201, "\"colour\":\"red\""),
        (
            &strict,
            with(json!({"metadata": {"name": "y"}, "spec": {"colour": "red"}})),
            400,
            "strict decoding error: unknown field \\\"spec.colour\\\"",
        ),
    ];
    for (path, body, status, part) in cases {
        let answer = world.ask("POST", path, ADMIN, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert!(answer.text.contains(part), "{body}: {}", answer.text);
    }
    let missing = format!("{MAAS}/namespaces/absent/maassubscriptions");
    let answer = world.ask("POST", &missing, ADMIN, &with(json!({"metadata": {"namespace": "absent"}}))).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    assert!(answer.text.contains("namespaces \\\"absent\\\" not found"), "{}", answer.text);

    let warned = world
        .ask("POST", SUBSCRIPTIONS, ADMIN, &with(json!({"metadata": {"name": "z"}, "spec": {"colour": "red"}})))
        .await;
    assert_eq!(warned.header("warning"), r#"299 - "unknown field \"spec.colour\"""#);
    let huge = world.ask("POST", SUBSCRIPTIONS, ADMIN, &" ".repeat(3 * 1024 * 1024 + 1)).await;
    assert_eq!((huge.status, huge.json()["reason"].clone()), (413, json!("RequestEntityTooLarge")));
    let yaml = world
        .ask_with("POST", SUBSCRIPTIONS, ADMIN, "kind: MaaSSubscription", &[("content-type", "application/yaml")])
        .await;
    assert_eq!(yaml.status, 415, "{}", yaml.text);
    let protobuf = world
        .ask_with("POST", SUBSCRIPTIONS, ADMIN, "k8s", &[("content-type", "application/vnd.kubernetes.protobuf")])
        .await;
    assert_eq!(protobuf.status, 415, "{}", protobuf.text);
}

/// The life of one object: every write answers what is there, versions guard against lost updates.
#[tokio::test]
async fn an_object_is_created_changed_and_deleted() {
    let world = World::start().await;
    world.furnish().await;
    let path = format!("{SUBSCRIPTIONS}/dev");

    // A dry run changes nothing; the real one does.
    let dry = format!("{SUBSCRIPTIONS}?dryRun=All");
    world.done("POST", &dry, &subscription("dev", 0, 1000)).await;
    assert_eq!(world.ask("GET", &path, ADMIN, "").await.status, 404);
    let mut manifest = subscription("dev", 0, 1000);
    merge(
        &mut manifest,
        json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}, "status": {"phase": "Forged"}}),
    );
    let created = world.done("POST", SUBSCRIPTIONS, &manifest).await;
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"], "{}");
    let version = created["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(world.done("GET", &path, &json!(null)).await, created);

    // Replaced under its version; a second replacement under the same version is a conflict.
    let mut next = created.clone();
    next["spec"]["priority"] = json!(7);
    let replaced = world.done("PUT", &path, &next).await;
    assert_eq!((&replaced["spec"]["priority"], &replaced["metadata"]["generation"]), (&json!(7), &json!(2)));
    assert_ne!(replaced["metadata"]["resourceVersion"], version);
    let late = world.ask("PUT", &path, ADMIN, &next.to_string()).await;
    assert_eq!((late.status, late.json()["reason"].clone()), (409, json!("Conflict")));
    let other = world.ask("PUT", &format!("{SUBSCRIPTIONS}/else"), ADMIN, &next.to_string()).await;
    assert_eq!(other.status, 400, "{}", other.text);

    // A change of labels only is no new generation, and no change at all is no new version.
    let labelled = world.done("PATCH", &path, &json!({"metadata": {"labels": {"team": "a"}}})).await;
    assert_eq!(
        (&labelled["metadata"]["generation"], &labelled["metadata"]["labels"]["team"]),
        (&json!(2), &json!("a"))
    );
    let same = world.done("PATCH", &path, &json!({"metadata": {"labels": {"team": "a"}}})).await;
    assert_eq!(same["metadata"]["resourceVersion"], labelled["metadata"]["resourceVersion"]);

    // Deleted under its uid only.
    let wrong = r#"{"preconditions":{"uid":"00000000-0000-4000-8000-000000000000"}}"#;
    assert_eq!(world.ask("DELETE", &path, ADMIN, wrong).await.status, 409);
    let dry = world.ask("DELETE", &path, ADMIN, r#"{"dryRun":["All"]}"#).await;
    assert_eq!((dry.status, world.ask("GET", &path, ADMIN, "").await.status), (200, 200));
    let right = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": created["metadata"]["uid"]}});
    let gone = world.done("DELETE", &path, &right).await;
    assert_eq!((&gone["status"], &gone["details"]["uid"]), (&json!("Success"), &created["metadata"]["uid"]));
    assert_eq!(world.ask("DELETE", &path, ADMIN, "").await.status, 404);
}

#[tokio::test]
async fn patches_come_in_four_media_types() {
    let world = World::start().await;
    world.furnish().await;
    let dev = format!("{SUBSCRIPTIONS}/calculus-dev");
    let stale = r#"{"metadata":{"resourceVersion":"3"},"spec":{"priority":9}}"#;
    let apply = json!({"apiVersion": "maas.opendatahub.io/v1alpha1", "kind": "MaaSSubscription", "metadata": {"name": "applied", "labels": {"by": "ssa"}}, "spec": subscription("", 3, 10)["spec"]}).to_string();
    let applied = format!("{SUBSCRIPTIONS}/applied?fieldManager=test&force=true");
    let nobody = format!("{SUBSCRIPTIONS}/applied");
    let namespace = "/api/v1/namespaces/llm";
    let cases = [
        (&*dev, "application/merge-patch+json", r#"{"spec":{"priority":5}}"#, 200, "\"priority\":5"),
        (&*dev, "application/merge-patch+json", stale, 409, "Conflict"),
        (&*dev, "application/merge-patch+json", r#"{"spec":{"modelRefs":null}}"#, 422, "spec.modelRefs"),
        (
            &*dev,
            "application/merge-patch+json",
            r#"{"metadata":{"name":"other"}}"#,
            400,
            "does not match the name on the URL",
        ),
        (
            &*dev,
            "application/json-patch+json",
            r#"[{"op":"test","path":"/spec/priority","value":5},{"op":"replace","path":"/spec/priority","value":6}]"#,
            200,
            "\"priority\":6",
        ),
        (
            &*dev,
            "application/json-patch+json",
            r#"[{"op":"test","path":"/spec/priority","value":5}]"#,
            422,
            "operation 0",
        ),
        (
            &*dev,
            "application/json-patch+json",
            r#"[{"op":"replace","path":"/status/phase","value":"Forged"}]"#,
            200,
            "\"phase\":\"Active\"",
        ),
        (&*dev, "application/strategic-merge-patch+json", "{}", 415, "application/merge-patch+json"),
        (&*dev, "application/json", "{}", 415, "application/json-patch+json"),
        (
            namespace,
            "application/strategic-merge-patch+json",
            r#"{"metadata":{"labels":{"a":"b"}}}"#,
            200,
            "\"a\":\"b\"",
        ),
        (
            namespace,
            "application/strategic-merge-patch+json",
            r#"{"spec":{"finalizers":[{"$patch":"delete"}]}}"#,
            400,
            "$patch",
        ),
        (&*nobody, "application/apply-patch+yaml", &*apply, 400, "fieldManager is required"),
        (&*applied, "application/apply-patch+yaml", "kind: MaaSSubscription", 415, "as JSON"),
        (&*applied, "application/apply-patch+yaml", &*apply, 201, "\"by\":\"ssa\""),
        (&*applied, "application/apply-patch+yaml", &*apply, 200, "\"generation\":1"),
        (
            &*applied,
            "application/merge-patch+json",
            r#"{"metadata":{"labels":{"mine":"x"}},"spec":{"priority":1}}"#,
            200,
            "\"mine\":\"x\"",
        ),
        (&*applied, "application/apply-patch+yaml", &*apply, 200, "\"mine\":\"x\""),
        (&*applied, "application/apply-patch+yaml", &*apply, 200, "\"priority\":3"),
        (&format!("{SUBSCRIPTIONS}/absent"), "application/merge-patch+json", "{}", 404, "NotFound"),
        (&format!("{dev}/status"), "application/merge-patch+json", "{}", 405, "status is computed"),
    ];
    for (path, media, body, status, part) in cases {
        let answer = world.ask_with("PATCH", path, ADMIN, body, &[("content-type", media)]).await;
        assert_eq!(answer.status, status, "{media} {body}: {}", answer.text);
        assert!(answer.text.contains(part), "{media} {body}: {}", answer.text);
    }
}

#[tokio::test]
async fn lists_select_and_tables_show() {
    let world = World::start().await;
    world.furnish().await;
    for (name, team) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        let mut object = subscription(name, 1, 10);
        merge(&mut object, json!({"metadata": {"labels": {"team": team}}}));
        world.done("POST", SUBSCRIPTIONS, &object).await;
    }
    let everywhere = format!("{MAAS}/maassubscriptions");
    let cases = [
        (SUBSCRIPTIONS, "", "a b c calculus-dev"),
        (&*everywhere, "", "a b c calculus-dev"),
        (&format!("{MAAS}/namespaces/llm/maassubscriptions"), "", ""),
        (SUBSCRIPTIONS, "?labelSelector=team%3Dred", "a c"),
        (SUBSCRIPTIONS, "?labelSelector=team%20notin%20(red)", "b calculus-dev"),
        (SUBSCRIPTIONS, "?fieldSelector=metadata.name%3Db", "b"),
        (SUBSCRIPTIONS, "?fieldSelector=metadata.name!%3Db&labelSelector=team", "a c"),
        (SUBSCRIPTIONS, "?limit=1", "a b c calculus-dev"),
    ];
    for (path, query, expected) in cases {
        let list = world.done("GET", &format!("{path}{query}"), &json!(null)).await;
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expected, "{path}{query}");
        assert_eq!(list["kind"], "MaaSSubscriptionList");
        assert!(list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 1);
    }

    let table = world.ask_with("GET", SUBSCRIPTIONS, ADMIN, "", &[("accept", TABLE)]).await.json();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Phase", "Priority", "Age"]);
    let row = &table["rows"][0];
    assert_eq!((&row["cells"][0], &row["cells"][1], &row["cells"][2]), (&json!("a"), &json!("Active"), &json!(1)));
    assert!(row["cells"][3].as_str().unwrap().ends_with('s'), "{row}");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    let full = world
        .ask_with("GET", &format!("{SUBSCRIPTIONS}/a?includeObject=Object"), ADMIN, "", &[("accept", TABLE)])
        .await
        .json();
    assert_eq!(full["rows"][0]["object"]["kind"], "MaaSSubscription");
}

#[tokio::test]
async fn a_service_account_gets_a_token_that_dies_with_it() {
    let world = World::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"generateName": "robot-"}});
    let created = world.done("POST", accounts, &account).await;
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("robot-") && name.len() == 11, "{name}");
    let tokens = format!("{accounts}/{name}/token");

    let cases = [
        (&*tokens, json!({"spec": {"expirationSeconds": 5}}), 422, "less than 10 minutes"),
        (&*tokens, json!({"spec": {"audiences": ["elsewhere"]}}), 422, "spec.audiences"),
        (&*tokens, json!({"spec": {"boundObjectRef": {"kind": "Pod"}}}), 422, "spec.boundObjectRef"),
        (&format!("{accounts}/absent/token"), json!({}), 404, "not found"),
        (&*tokens, json!({"spec": {"expirationSeconds": 999_999_999}}), 201, "\"expirationSeconds\":31536000"),
    ];
    for (path, body, status, part) in cases {
        let answer = world.ask("POST", path, ADMIN, &body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert!(answer.text.contains(part), "{body}: {}", answer.text);
    }
    let answer = world.done("POST", &tokens, &json!({"spec": {"expirationSeconds": 600}})).await;
    let token = answer["status"]["token"].as_str().unwrap();
    assert!(token.starts_with("tgsa-"), "{token}");
    let who = world.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", token, "{}").await.json();
    assert_eq!(who["status"]["userInfo"]["username"], format!("system:serviceaccount:default:{name}"));
    let groups = who["status"]["userInfo"]["groups"].as_array().unwrap();
    for group in ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"] {
        assert!(groups.contains(&json!(group)), "{who}");
    }
    // Its secret is nowhere in the state that nodes share.
    let view = world.context.cluster.view();
    assert!(!format!("{:?}", view.tokens).contains(token));

    world.done("DELETE", &format!("{accounts}/{name}"), &json!({})).await;
    assert_eq!(world.ask("GET", "/version", token, "").await.status, 401);
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                match value {
                    Value::Null => drop(into.remove(&name)),
                    value => merge(into.entry(name).or_insert(Value::Null), value),
                }
            }
        }
        (into, value) => *into = value,
    }
}

//! The tutorial's commands, run by the real `kubectl` over TLS. It must be installed, from 1.20 on: without it these tests
//! fail. What younger clients added is tried where the client has it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use node::accept::{Limits, Port};
use node::admin;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::world::{ADMIN, ALICE, BOB, World};

/// What the tutorial applies, with its model's name filled in.
const SUBSCRIPTION: &str = r#"# maas-subscription.yaml
apiVersion: maas.opendatahub.io/v1alpha1
kind: MaaSSubscription
metadata:
  name: calculus-dev
  namespace: models-as-a-service
spec:
  # Priority determines which subscription is used when a user belongs
  # to multiple groups. Higher number = higher priority.
  priority: 0
  owner:
    groups:
      - name: calculus-users
  modelRefs:
    - name: gpt-oss-20b
      namespace: gpt-oss-model
      tokenRateLimits:
        - limit: 50000
          window: 1h
"#;
const POLICY: &str = r#"# maas-auth-policy.yaml
apiVersion: maas.opendatahub.io/v1alpha1
kind: MaaSAuthPolicy
metadata:
  name: calculus-dev-access
  namespace: models-as-a-service
spec:
  subjects:
    groups:
      - name: calculus-users
  modelRefs:
    - name: gpt-oss-20b
      namespace: gpt-oss-model
"#;
const MODEL: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: gpt-oss-model
---
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata:
  name: gpt-oss-20b
  namespace: gpt-oss-model
  annotations:
    tollgate.dev/replicas: http://127.0.0.1:9
spec:
  model:
    uri: hf://openai/gpt-oss-20b
    name: openai/gpt-oss-20b
  replicas: 1
---
apiVersion: maas.opendatahub.io/v1alpha1
kind: MaaSModelRef
metadata:
  name: gpt-oss-20b
  namespace: gpt-oss-model
spec:
  modelRef:
    kind: LLMInferenceService
    name: gpt-oss-20b
---
apiVersion: user.openshift.io/v1
kind: Group
metadata:
  name: calculus-users
users:
  - alice
  - b64:a3ViZTphZG1pbg==
"#;

/// `kubectl` as one user against one node.
struct Kubectl {
    directory: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn new(test: &str, server: &Server, token: &str) -> Kubectl {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kubectl-{test}-{}", server.port));
        std::fs::create_dir_all(&directory).unwrap();
        let kubeconfig = directory.join(format!("config-{token}"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {
                "server": format!("https://127.0.0.1:{}", server.port),
                "certificate-authority-data": STANDARD.encode(&server.ca_pem),
            }}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Kubectl { directory, kubeconfig }
    }

    /// Runs a command line (split at blanks; `input` goes to its standard input): whether it succeeded, and what it wrote.
    async fn run(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let mut child = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl is installed");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// The client's minor version: 20 for 1.20.
    async fn minor(&self) -> u32 {
        let version: Value = serde_json::from_str(&self.done("version --client -o json", "").await).unwrap();
        let minor = version["clientVersion"]["minor"].as_str().unwrap();
        minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    }

    /// Runs what must succeed.
    async fn done(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (success, output, errors) = self.run(&arguments, input).await;
        assert!(success, "kubectl {line}: {output}{errors}");
        output
    }

    /// Runs what must fail, and answers its complaint.
    async fn fails(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (success, output, errors) = self.run(&arguments, input).await;
        assert!(!success, "kubectl {line} succeeded: {output}");
        errors
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The admin API on a real TLS port.
struct Server {
    port: u16,
    ca_pem: String,
}

async fn serve(world: &World) -> Server {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = parameters.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(parameters, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

    let listener = world.context.doors.net.listen("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Port { listener, tls: Some(Arc::new(tls)), limits: Limits::default() };
    tokio::spawn(admin::serve(world.context.clone(), world.admin.clone(), open, std::future::pending()));
    Server { port, ca_pem }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_runs_with_kubectl() {
    let world = World::start().await;
    let server = serve(&world).await;
    let kubectl = Kubectl::new("tutorial", &server, ADMIN);

    // The server is recognised, and knows its kinds.
    assert!(kubectl.done("version", "").await.contains("v1.32.0+tollgate"));
    let kinds = kubectl.done("api-resources --no-headers", "").await;
    for kind in [
        "MaaSSubscription",
        "MaaSAuthPolicy",
        "MaaSModelRef",
        "Tenant",
        "LLMInferenceService",
        "Group",
        "ServiceAccount",
    ] {
        assert!(kinds.contains(kind), "{kinds}");
    }

    // What the catalog makes: a model, published. The group of its users.
    kubectl.done("apply -f -", MODEL).await;
    let name = kubectl.done("get maasmodelref -n gpt-oss-model -o jsonpath={.items[0].metadata.name}", "").await;
    assert_eq!(name, "gpt-oss-20b");
    kubectl.done("wait maasmodelref/gpt-oss-20b -n gpt-oss-model --for=condition=Ready --timeout=10s", "").await;

    // Part 4: the subscription and the policy, built by hand.
    assert_eq!(
        kubectl.done("apply -f -", SUBSCRIPTION).await,
        "maassubscription.maas.opendatahub.io/calculus-dev created\n"
    );
    assert_eq!(
        kubectl.done("apply -f -", POLICY).await,
        "maasauthpolicy.maas.opendatahub.io/calculus-dev-access created\n"
    );
    let table = kubectl.done("get maassubscriptions -n models-as-a-service", "").await;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "PHASE", "PRIORITY", "AGE"]);
    assert_eq!(words[1][..3], ["calculus-dev", "Active", "0"]);
    let table = kubectl.done("get maasauthpolicies -n models-as-a-service", "").await;
    assert!(table.contains("calculus-dev-access") && table.contains("Active"), "{table}");

    // Applying again changes nothing; applying a change changes that.
    assert!(kubectl.done("apply -f -", SUBSCRIPTION).await.ends_with("unchanged\n"));
    let raised = SUBSCRIPTION.replace("limit: 50000", "limit: 60000");
    assert!(kubectl.done("diff -f -", SUBSCRIPTION).await.is_empty());
    assert!(kubectl.done("apply -f -", &raised).await.ends_with("configured\n"));
    let path = "jsonpath={.spec.modelRefs[0].tokenRateLimits[0].limit}";
    assert_eq!(
        kubectl.done(&format!("get maassubscription calculus-dev -n models-as-a-service -o {path}"), "").await,
        "60000"
    );

    // Part 7: telemetry in the tenant.
    let patch =
        r#"{"spec":{"telemetry":{"enabled":true,"metrics":{"captureOrganization":true,"captureModelUsage":true}}}}"#;
    kubectl
        .done(
            &format!("patch tenants.maas.opendatahub.io default-tenant -n models-as-a-service --type merge -p {patch}"),
            "",
        )
        .await;
    let tenant: Value =
        serde_json::from_str(&kubectl.done("get tenant default-tenant -n models-as-a-service -o json", "").await)
            .unwrap();
    assert_eq!(tenant["spec"]["telemetry"]["metrics"]["captureModelUsage"], true);

    // And away with it.
    kubectl.done("delete maassubscription calculus-dev -n models-as-a-service", "").await;
    let gone = kubectl.fails("get maassubscription calculus-dev -n models-as-a-service", "").await;
    assert!(gone.contains("(NotFound)") && gone.contains("calculus-dev"), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_do_with_kubectl_day_by_day() {
    let world = World::start().await;
    let server = serve(&world).await;
    let kubectl = Kubectl::new("daily", &server, ADMIN);
    kubectl.done("apply -f -", MODEL).await;

    // Mistakes are found by the server, and told in full.
    let error = kubectl.fails("apply -f -", &SUBSCRIPTION.replace("1h", "1d")).await;
    assert!(error.contains("spec.modelRefs[0].tokenRateLimits[0].window"), "{error}");
    let absent = SUBSCRIPTION.replace("namespace: models-as-a-service", "namespace: absent");
    let error = kubectl.fails("apply -f -", &absent).await;
    assert!(error.contains("absent"), "{error}");
    kubectl.done("apply -f -", SUBSCRIPTION).await;

    // Other ways to write.
    kubectl.done("apply --server-side -f -", POLICY).await;
    kubectl.done("create namespace team-a", "").await;
    kubectl.done("create --dry-run=server -f -", &SUBSCRIPTION.replace("calculus-dev", "imagined")).await;
    kubectl.done("label maassubscription calculus-dev -n models-as-a-service team=a", "").await;
    kubectl.done("annotate namespace team-a note=x", "").await;
    kubectl.done("replace -f -", SUBSCRIPTION).await;
    kubectl.done(r#"patch maassubscription calculus-dev -n models-as-a-service --type json -p [{"op":"replace","path":"/spec/priority","value":3}]"#, "").await;
    let listed = kubectl.done("get maassubscription -A -o name", "").await;
    assert_eq!(listed, "maassubscription.maas.opendatahub.io/calculus-dev\n");
    assert!(
        kubectl
            .done("describe maassubscription calculus-dev -n models-as-a-service", "")
            .await
            .contains("Priority:  3")
    );
    kubectl
        .done("apply -f -", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: team-a\n  labels:\n    a: b\n")
        .await;
    assert!(kubectl.done("get namespaces --show-labels", "").await.contains("a=b"));

    // Everybody sees models, and nothing else.
    let alice = Kubectl::new("alice", &server, ALICE);
    assert!(alice.done("get maasmodelref -n gpt-oss-model", "").await.contains("gpt-oss-20b"));
    let refused = alice.fails("get maassubscriptions -n models-as-a-service", "").await;
    assert!(refused.contains("(Forbidden)") && refused.contains(r#"User "alice" cannot list"#), "{refused}");
    assert_eq!(kubectl.done("auth can-i delete maassubscriptions -n models-as-a-service", "").await, "yes\n");
    let (success, answer, _) = alice.run(&["auth", "can-i", "delete", "maassubscriptions"], "").await;
    assert!(!success && answer.starts_with("no - "), "{answer}");

    // Watching.
    let watch = kubectl.run(&["get", "namespaces", "-w", "--request-timeout=3s"], "");
    let delete = async {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        kubectl.done("delete namespace team-a", "").await
    };
    let ((_, watched, _), _) = tokio::join!(watch, delete);
    assert_eq!(watched.lines().filter(|line| line.starts_with("team-a ")).count(), 2, "{watched}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_younger_clients_can_do() {
    let world = World::start().await;
    let server = serve(&world).await;
    let kubectl = Kubectl::new("younger", &server, ADMIN);
    kubectl.done("apply -f -", MODEL).await;
    kubectl.done("create serviceaccount robot -n default", "").await;
    let minor = kubectl.minor().await;

    // Tokens; an older client's user asks the API itself.
    let token = if minor >= 24 {
        kubectl.done("create token robot -n default --duration 24h", "").await
    } else {
        let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
        world.done("POST", path, &json!({})).await["status"]["token"].as_str().unwrap().to_owned()
    };
    let robot = Kubectl::new("robot", &server, token.trim());
    robot.done("get maasmodelref -A", "").await;
    if minor >= 28 {
        assert!(robot.done("auth whoami", "").await.contains("system:serviceaccount:default:robot"));
    }
    // Which tokens there are, and one less.
    let bob = Kubectl::new("bob", &server, BOB);
    assert!(bob.done("get maasmodelref -A", "").await.contains("gpt-oss-20b"));
    let tokens = kubectl.done("get tokens", "").await;
    assert!(tokens.contains(":robot ") && tokens.contains("LAST USED"), "{tokens}");
    let line = tokens.lines().find(|line| line.contains(" bob ")).unwrap();
    let id = line.split_whitespace().next().unwrap();
    assert!(kubectl.done(&format!("describe token {id}"), "").await.contains("bob"));
    kubectl.done(&format!("delete token {id}"), "").await;
    assert!(bob.fails("get maasmodelref -A", "").await.contains("logged in"));
    assert!(kubectl.fails(&format!("get token {id}"), "").await.contains("(NotFound)"));

    kubectl.done("delete serviceaccount robot -n default", "").await;
    assert!(robot.fails("get maasmodelref -A", "").await.contains("logged in"));

    if minor >= 23 {
        let wait = kubectl.done("wait namespace/default --for=jsonpath={.status.phase}=Active --timeout=5s", "").await;
        assert!(wait.contains("condition met"), "{wait}");
    }
    if minor >= 25 {
        let typo = SUBSCRIPTION.replace("priority: 0", "priorities: 0");
        let error = kubectl.fails("apply -f - --validate=strict", &typo).await;
        assert!(error.contains(r#"unknown field "spec.priorities""#), "{error}");
        let (success, _, warning) = kubectl.run(&["apply", "-f", "-", "--validate=warn"], &typo).await;
        assert!(success && warning.contains(r#"Warning: unknown field "spec.priorities""#), "{warning}");
    }
}

//! The nodes' admin API: HTTPS, trusting the local authority and nobody else.

use std::time::Duration;

use http::Method;
use raft::doors::Doors;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::super::admin_port::{AdminPort, Answer};
use super::super::exit::Failure;
use super::nodes::Nodes;
use super::plan::{NodePlan, Plan};
use crate::tls;

/// A node that is not ready after so long will not be without help.
const READY_MAX: Duration = Duration::from_secs(60);
/// Replicas that do not answer after so long are mentioned on the page.
const MODEL_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(25);

/// Talks to the nodes' admin ports.
pub(super) struct AdminClient {
    /// Any of them, but for its number.
    any: AdminPort,
    token: String,
    ports: Vec<u16>,
}

impl AdminClient {
    pub(super) fn new(plan: &Plan, doors: &Doors, token: String) -> Result<AdminClient, Failure> {
        let tls = Some(TlsConnector::from(tls::client(&plan.tls_dir().join("ca.crt"))?));
        let any = AdminPort { doors: doors.clone(), tls, host: "127.0.0.1".to_owned(), port: 0 };
        Ok(AdminClient { any, token, ports: plan.nodes.iter().map(|node| node.admin_port).collect() })
    }

    /// One call to the first node, as the administrator. Errors: one line why there was no answer.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        self.call_as(&self.token, self.ports[0], method, path, body).await
    }

    /// One call to the first node, as the bearer of `token`.
    pub(super) async fn post_as(&self, token: &str, path: &str, body: &Value) -> Result<Answer, String> {
        self.call_as(token, self.ports[0], Method::POST, path, Some(body)).await
    }

    /// Waits until every node says that it is ready. Errors: one ended, or takes too long.
    pub(super) async fn wait_until_ready(&self, plan: &Plan, nodes: &Nodes) -> Result<(), Failure> {
        for node in &plan.nodes {
            let started = tokio::time::Instant::now();
            loop {
                let Err(last) = self.check_ready(node.admin_port).await else { break };
                if let Some(reason) = nodes.gone() {
                    return Err(Failure::unavailable(reason));
                }
                if started.elapsed() > READY_MAX {
                    return Err(Failure::internal(format!(
                        "node {} is not ready: {last}; its log is {}",
                        node.id,
                        node.log_file().display()
                    )));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// Whether the node serves, and knows the administrator's token, which it learns a moment later. Errors: what is missing.
    async fn check_ready(&self, port: u16) -> Result<(), String> {
        for path in ["/readyz", "/api/v1/namespaces"] {
            let answer = self.call_as(&self.token, port, Method::GET, path, None).await?;
            if !answer.status.is_success() {
                return Err(format!("{path} answers {}", answer.status));
            }
        }
        Ok(())
    }

    /// Waits until every node sees the model's replicas. Returns whether they do.
    pub(super) async fn wait_for_model(&self, plan: &Plan) -> bool {
        let all = async {
            for node in &plan.nodes {
                while !self.model_is_ready(plan, node).await {
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::time::timeout(MODEL_MAX, all).await.is_ok()
    }

    async fn model_is_ready(&self, plan: &Plan, node: &NodePlan) -> bool {
        let path = format!(
            "/apis/maas.opendatahub.io/v1alpha1/namespaces/{}/maasmodelrefs/{}",
            plan.model.namespace, plan.model.name
        );
        let answer = self.call_as(&self.token, node.admin_port, Method::GET, &path, None).await;
        answer.is_ok_and(|answer| answer.body["status"]["phase"] == "Ready")
    }

    async fn call_as(
        &self,
        token: &str,
        port: u16,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        AdminPort { port, ..self.any.clone() }.call(token, method, path, body).await
    }
}

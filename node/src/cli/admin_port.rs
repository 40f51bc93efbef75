//! A small client of a node's admin port: one call, one connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use raft::doors::{BoxStream, Doors};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::exit::Failure;
use crate::tls;

/// An answer takes no longer, or is given up.
const CALL_MAX: Duration = Duration::from_secs(15);

/// Where an admin port is, and whom to trust there.
#[derive(Clone)]
pub(super) struct AdminPort {
    pub(super) doors: Doors,
    /// `None`: plain HTTP.
    pub(super) tls: Option<TlsConnector>,
    pub(super) host: String,
    pub(super) port: u16,
}

/// An answer: its status and its body, also as JSON (`null` if it is none).
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    pub(super) bytes: Bytes,
}

/// Options of whoever asks an admin port something.
#[derive(clap::Args)]
pub(super) struct Asker {
    /// Where the admin port of any node is
    #[arg(long, value_name = "URL", env = "MAAS_ADMIN_URL", default_value = "https://127.0.0.1:8443")]
    admin: Uri,
    /// The authority that the admin port's certificate is of, a PEM file
    #[arg(long, value_name = "FILE", env = "MAAS_ADMIN_CA")]
    ca: Option<PathBuf>,
    /// A file with an administrator's token
    #[arg(long, value_name = "FILE", env = "MAAS_ADMIN_TOKEN_FILE")]
    token_file: PathBuf,
}

impl Asker {
    /// What the admin port says to `GET path`. Errors: nobody can be asked, or the answer was no.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path).await
    }

    /// The same for another method, without a body.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Answer, Failure> {
        let port = port(&self.admin, self.ca.as_deref())?;
        let token = std::fs::read_to_string(&self.token_file)
            .map_err(|error| Failure::usage(format!("{}: {error}", self.token_file.display())))?;
        let answer = port.call(token.trim(), method, path, None).await.map_err(Failure::unavailable)?;
        if !answer.status.is_success() {
            // In the words of our own API, or of the Kubernetes-style one.
            let why = answer.body["error"].as_str().or_else(|| answer.body["message"].as_str());
            let why = why.unwrap_or("this is no admin port of Tollgate");
            return Err(Failure::usage(format!("{}: {why}", answer.status)));
        }
        Ok(answer)
    }
}

/// Errors: the URL names no host, or the authority cannot be read.
fn port(url: &Uri, ca: Option<&Path>) -> Result<AdminPort, Failure> {
    let wrong = |what: &str| Failure::usage(format!("--admin {url}: {what}"));
    let host = url.host().ok_or_else(|| wrong("write https://HOST:PORT"))?.to_owned();
    let (tls, usual_port) = match (url.scheme_str(), ca) {
        (Some("http"), _) => (None, 80),
        (Some("https"), Some(ca)) => (Some(TlsConnector::from(tls::client(ca)?)), 443),
        (Some("https"), None) => return Err(wrong("say with --ca FILE which authority to trust")),
        _ => return Err(wrong("write https://HOST:PORT")),
    };
    Ok(AdminPort { doors: Doors::real(), tls, host, port: url.port_u16().unwrap_or(usual_port) })
}

impl AdminPort {
    /// One call, as the bearer of `token`. Errors: one line why there was no answer.
    pub(super) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let at = format!("{}:{}", self.host, self.port);
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &at)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(bytes))
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(CALL_MAX, self.exchange(request)).await;
        answer
            .unwrap_or_else(|_| Err(format!("no answer within {CALL_MAX:?}")))
            .map_err(|error| format!("{at}: {error}"))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let stream = self.doors.net.connect(&self.host, self.port).await.map_err(|error| error.to_string())?;
        let stream: BoxStream = match &self.tls {
            None => stream,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
                Box::new(tls.connect(name, stream).await.map_err(|error| error.to_string())?)
            }
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null), bytes: body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_that_cannot_be_asked_is_named() {
        for url in ["/nowhere", "ftp://host", "https://host:8443"] {
            let failure = port(&url.parse().unwrap(), None).err().unwrap();
            assert!(failure.message.contains(url), "{}", failure.message);
        }
        let plain = port(&"http://host:81".parse().unwrap(), None).unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("host", 81));
    }
}

//! The first administrator: a token in a file of its own. The cluster learns its hash, once. A token that was revoked stays revoked,
//! whatever files still have it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use raft::Cluster;
use raft::command::{Command, CommandRefusal, NewToken, Reply};
use raft::doors::Chance;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::files;

/// Between two attempts while the cluster has no leader.
const RETRY: Duration = Duration::from_secs(1);
/// Shorter ones could be guessed.
const LENGTH_MIN: usize = 32;

/// The SHA-256 of the administrator's token: all that leaves the file.
pub(super) struct TokenHash([u8; 32]);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the administrator's token {path}: {reason}")]
pub struct TokenFileError {
    path: PathBuf,
    reason: String,
}

/// Reads the token, or makes one (43 characters, mode 0600) if there is no such file.
/// Errors: the file cannot be read or written, or its token is too short.
pub(super) fn read_or_create(path: &Path, chance: &dyn Chance) -> Result<TokenHash, TokenFileError> {
    let wrong = |reason: String| TokenFileError { path: path.to_owned(), reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            chance.fill(&mut bytes);
            let token = URL_SAFE_NO_PAD.encode(bytes);
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).map_err(|error| wrong(format!("cannot be written: {error}")))?;
            }
            files::create_secret(path, &token).map_err(|error| wrong(format!("cannot be written: {error}")))?;
            token
        }
        Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
    };
    let token = text.trim();
    if token.len() < LENGTH_MIN {
        return Err(wrong(format!("has {} characters: at least {LENGTH_MIN} are needed", token.len())));
    }
    Ok(TokenHash(Sha256::digest(token).into()))
}

/// Makes the token known to the cluster unless it is already. Returns when it is.
pub(super) async fn propose(cluster: Cluster, token: TokenHash) {
    loop {
        match cluster.read_barrier().await {
            Ok(view) if view.tokens.contains_key(&token.0) => return,
            Ok(view) if view.revoked_tokens.contains(&token.0) => return warn_of_revoked(),
            Ok(_) => match cluster.propose(create(&token)).await.map(|applied| applied.reply) {
                Ok(Reply::Refused(CommandRefusal::TokenRevoked)) => return warn_of_revoked(),
                Ok(Reply::Refused(refusal)) => return warn!(%refusal, "the administrator's token was refused"),
                Ok(_) => return info!("the administrator's token is in place"),
                Err(_) => {}
            },
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn warn_of_revoked() {
    warn!(
        "the token in admin.bootstrap_token_file was revoked and is not accepted: put another into the file, or leave it"
    );
}

fn create(token: &TokenHash) -> Command {
    Command::CreateToken(NewToken {
        hash: token.0,
        username: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
        expires: None,
        service_account: None,
    })
}

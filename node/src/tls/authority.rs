//! A local certificate authority, so that nobody sets up certificates to try the product.
//!
//! Its private key stays in the data directory (mode 0600); only the generated kubeconfig and the nodes trust it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use raft::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::TlsError;
use crate::config::Files;
use crate::files;

/// The authority outlives what it signs: a new one means a new kubeconfig.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Certificates are issued anew at every start of `tollgate dev`, long before they end.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    path: PathBuf,
}

/// A certificate and its key, as files.
pub type Issued = Files;

impl Authority {
    /// The authority of `directory` (`ca.crt`, `ca.key`); made there if there is none.
    /// Errors: the files cannot be read or written, or hold something else.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Authority, TlsError> {
        let (path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        std::fs::create_dir_all(directory).map_err(|error| TlsError::new(directory, error))?;
        if path.exists() && key_path.exists() {
            let pem = std::fs::read_to_string(&key_path).map_err(|error| TlsError::new(&key_path, error))?;
            let key = KeyPair::from_pem(&pem).map_err(|error| TlsError::new(&key_path, error))?;
            return Ok(Authority { issuer: Issuer::new(parameters(now), key), path });
        }
        let key = KeyPair::generate().map_err(|error| TlsError::new(&key_path, error))?;
        let certificate = parameters(now).self_signed(&key).map_err(|error| TlsError::new(&path, error))?;
        files::replace(&key_path, &key.serialize_pem(), true).map_err(|error| TlsError::new(&key_path, error))?;
        files::replace(&path, &certificate.pem(), false).map_err(|error| TlsError::new(&path, error))?;
        Ok(Authority { issuer: Issuer::new(parameters(now), key), path })
    }

    /// The authority's own certificate: what clients must trust.
    pub fn certificate(&self) -> &Path {
        &self.path
    }

    /// Issues a certificate for `names` (host names and addresses), good for servers and for clients, as
    /// `<name>.crt` and `<name>.key` beside the authority.
    pub fn issue(&self, name: &str, names: &[&str], now: Timestamp) -> Result<Issued, TlsError> {
        let certificate_path = self.path.with_file_name(format!("{name}.crt"));
        let key_path = self.path.with_file_name(format!("{name}.key"));
        let wrong = |error: rcgen::Error| TlsError::new(&certificate_path, error);
        let key = KeyPair::generate().map_err(wrong)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).map_err(wrong)?;
        parameters.distinguished_name.push(DnType::CommonName, format!("Tollgate {name}"));
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_life(&mut parameters, now, CERTIFICATE_LIFE);
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(wrong)?;
        files::replace(&key_path, &key.serialize_pem(), true).map_err(|error| TlsError::new(&key_path, error))?;
        files::replace(&certificate_path, &certificate.pem(), false)
            .map_err(|error| TlsError::new(&certificate_path, error))?;
        Ok(Issued { certificate: certificate_path, key: key_path })
    }
}

/// The same at every start: what it signs names it by this and its key.
fn parameters(now: Timestamp) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "Tollgate local authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut parameters, now, AUTHORITY_LIFE);
    parameters
}

/// From yesterday, so that clocks may differ a little, for so long.
fn set_life(parameters: &mut CertificateParams, now: Timestamp, life: Duration) {
    let day = |time: Timestamp| {
        let seconds = i64::try_from(time.seconds()).unwrap_or(0);
        let date = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date();
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    parameters.not_before = day(Timestamp(now.millis().saturating_sub(86_400_000)));
    parameters.not_after = day(now.plus(life));
}

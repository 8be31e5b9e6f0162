//! The file that says where a ready service listens, for whoever started it on a port of its own choosing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

/// Where the file will be.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: Option<PathBuf>,
}

/// The file; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Written {
    path: Option<PathBuf>,
}

impl ReadyFile {
    /// Removes what an earlier process may have left there: it would be believed.
    pub(super) async fn at(path: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = &path {
            match tokio::fs::remove_file(path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove the ready file {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(Self { path })
    }

    /// Writes it; a reader sees all of it or none of it.
    pub(super) async fn write(self, service: &str, addr: SocketAddr) -> anyhow::Result<Written> {
        if let Some(path) = &self.path {
            let mut unfinished = path.clone().into_os_string();
            unfinished.push(format!(".{}", std::process::id()));
            let text = format!(
                "{}\n",
                json!({ "service": service, "listen": format!("http://{}", reachable(addr)) })
            );
            let write = async {
                tokio::fs::write(&unfinished, text).await?;
                tokio::fs::rename(&unfinished, path).await
            };
            write
                .await
                .with_context(|| format!("cannot write the ready file {}", path.display()))?;
        }
        Ok(Written { path: self.path })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// "Any address" is one to listen on, not one to connect to.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_replaces_a_stale_one_and_goes_with_the_service() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        std::fs::write(&path, "stale").unwrap();
        let file = ReadyFile::at(Some(path.clone())).await.unwrap();
        assert!(!path.exists());

        let written = file.write("ingest", "0.0.0.0:4711".parse().unwrap()).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"service\":\"ingest\",\"listen\":\"http://127.0.0.1:4711\"}\n");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing half-written is left"
        );

        drop(written);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_impossible_path_is_named() {
        let file = ReadyFile::at(Some("/nowhere/ready.json".into())).await.unwrap();
        let error = file.write("ingest", "[::]:1".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/ready.json"));
    }

    #[test]
    fn an_address_to_listen_on_becomes_one_to_connect_to() {
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}

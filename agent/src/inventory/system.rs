//! `SystemInfo`: a small JSON object about the server, with the keys and the string values of the API's samples.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use serde_json::{Map, Value};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tonic::transport::Uri;

/// Longest text (SMC API §1.1).
const MAX_BYTES: usize = 1024;

/// Longest value, so that no text can displace the others.
const MAX_VALUE: usize = 128;

/// Queries the system's facts about itself.
#[derive(Debug)]
pub(super) struct SystemInfo {
    /// `None` if the system does not provide such facts.
    system: Option<System>,
    /// Host and port that this server calls. The address that it uses for that call is the one to show.
    server: String,
}

/// Returns the platform, such as `Ubuntu`.
pub(super) fn platform() -> String {
    let name = System::name().unwrap_or_else(|_| std::env::consts::OS.to_owned());
    domain::printable(&name).into_owned()
}

impl SystemInfo {
    pub fn new(server: &Uri) -> Self {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let server = server.authority().map(ToString::to_string);
        Self {
            system: System::new_with_specifics(what).ok(),
            server: server.unwrap_or_default(),
        }
    }

    /// Returns the JSON text. Load is measured since the last call.
    pub fn as_json(&mut self) -> String {
        let address = self.address();
        let mut info = Map::new();
        let mut put = |key: &str, value: String| {
            let value: String = domain::printable(&value).chars().take(MAX_VALUE).collect();
            info.insert(key.to_owned(), Value::String(value));
        };
        put("agent_mode", "online".to_owned());
        put("agent_type", "wherry".to_owned());
        put("client_type", "linux".to_owned());
        put("hostname", System::host_name().unwrap_or_default());
        put("ipv4", of_kind(address, IpAddr::is_ipv4));
        put("ipv6", of_kind(address, IpAddr::is_ipv6));
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let cpus = system.cpus();
            let brand = cpus.first().map_or("", |cpu| cpu.brand().trim());
            put("cores", cpus.len().to_string());
            put("cpu_info", brand.to_owned());
            put("cpu_usage", format!("{:.1}", system.global_cpu_usage()));
            put("memory", system.total_memory().to_string());
            let usage = percent(system.used_memory(), system.total_memory());
            put("memory_usage", usage);
        }
        fitting(info)
    }

    /// Returns the address that this server uses towards the gateway. Connecting a datagram socket sends nothing.
    fn address(&self) -> Option<IpAddr> {
        let server = self.server.to_socket_addrs().ok()?.next()?;
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

fn of_kind(address: Option<IpAddr>, is_kind: fn(&IpAddr) -> bool) -> String {
    address
        .filter(is_kind)
        .map(|address| address.to_string())
        .unwrap_or_default()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a percentage with one digit after the point"
)]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}", part as f64 * 100.0 / whole.max(1) as f64)
}

/// Removes the least informative values until the text is short enough: text outside ASCII takes several bytes a
/// character.
fn fitting(mut info: Map<String, Value>) -> String {
    for key in ["cpu_info", "ipv6", "agent_mode", "client_type"] {
        let text = Value::Object(info.clone()).to_string();
        if text.len() <= MAX_BYTES {
            return text;
        }
        info.remove(key);
    }
    Value::Object(info).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_and_strings_are_those_of_the_samples_and_fit() {
        let server = "https://127.0.0.1:8701".parse().unwrap();
        let text = SystemInfo::new(&server).as_json();
        assert!(text.len() <= MAX_BYTES, "{text}");
        let info: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(info.values().all(Value::is_string), "{text}");
        for key in [
            "agent_mode",
            "agent_type",
            "client_type",
            "cores",
            "cpu_info",
            "cpu_usage",
            "hostname",
            "ipv4",
            "ipv6",
            "memory",
            "memory_usage",
        ] {
            assert!(info.contains_key(key), "{key} in {text}");
        }
        assert_eq!(info["ipv4"], "127.0.0.1");
    }

    #[test]
    fn a_long_processor_name_goes_before_the_host_name() {
        let long = Value::String("ü".repeat(600));
        let info = Map::from_iter([
            ("cpu_info".to_owned(), long),
            ("hostname".to_owned(), Value::String("web-01".to_owned())),
        ]);
        assert_eq!(fitting(info), r#"{"hostname":"web-01"}"#);
    }
}

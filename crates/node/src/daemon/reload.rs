//! SIGHUP: certificates, keys, revocation lists, roster and what desks may do are read again. What
//! is broken is said, and the old stays in force.

use std::sync::Arc;

use bureau_net::CutCause;
use tokio::task::spawn_blocking;

use super::supervise::Serving;
use crate::Config;

impl Serving {
    /// Reads the files again.
    pub(super) async fn reload(&self) {
        let (engine, tls) = (Arc::clone(&self.engine), Arc::clone(&self.tls));
        let access = Arc::clone(&self.faces.access);
        let reloaded = spawn_blocking(move || {
            let mut faults = Vec::new();
            match Config::load(&engine.config.path) {
                Ok(config) => access.replace(&config.clients),
                Err(error) => faults.push(error.to_string()),
            }
            if let Err(error) = tls.reload() {
                faults.push(error.to_string());
            }
            if let Err(error) = engine.trust.reload(&engine.config, engine.clock.now()) {
                faults.push(error.to_string());
            }
            faults
        });
        let faults = match reloaded.await {
            Ok(faults) => faults,
            Err(error) => vec![error.to_string()],
        };
        for fault in &faults {
            tracing::error!(event = "reload_failed", fault = %fault);
        }
        // A member that the new roster suspends or no longer lists is cut at once.
        let roster = self.engine.trust.roster();
        self.connections
            .cut(CutCause::NotPermitted, |peer| roster.member(&peer.id.bureau).is_err());
        self.engine.links.wake_all();
        tracing::info!(event = "reloaded", roster_serial = roster.serial(), faults = faults.len());
    }
}

//! Who a caller is and what it may do. The bureau comes from the node itself, the desk from the
//! certificate, never from the request.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use bureau_core::{DeskName, Reason};
use bureau_net::{Refusal, Role, peer};
use tonic::Request;

use crate::config::{Client, Permission};

/// What each desk may do; replaced whole when the configuration is read again.
#[derive(Debug)]
pub struct Access {
    desks: ArcSwap<HashMap<DeskName, Vec<Permission>>>,
}

impl Access {
    /// From the configuration.
    #[must_use]
    pub fn new(clients: &[Client]) -> Self {
        Self { desks: ArcSwap::new(Arc::new(table(clients))) }
    }

    /// Takes a new configuration.
    pub fn replace(&self, clients: &[Client]) {
        self.desks.store(Arc::new(table(clients)));
    }

    /// The desk that calls, if it may do this.
    ///
    /// # Errors
    /// UNAUTHENTICATED, NOT_PERMITTED.
    pub fn desk<T>(&self, request: &Request<T>, needed: Permission) -> Result<DeskName, Refusal> {
        let identity = peer(request)?;
        let Role::Desk(desk) = &identity.id.role else {
            return Err(Refusal::new(Reason::NotPermitted, "only desks may call this"));
        };
        let desks = self.desks.load();
        let permissions = desks.get(desk).map(Vec::as_slice).unwrap_or_default();
        if !permissions.contains(&needed) {
            tracing::warn!(event = "not_permitted", desk = %desk, needed = needed.as_str());
            let message = format!("the desk {desk} may not {}", needed.as_str());
            return Err(Refusal::new(Reason::NotPermitted, message));
        }
        Ok(desk.clone())
    }
}

fn table(clients: &[Client]) -> HashMap<DeskName, Vec<Permission>> {
    clients.iter().map(|client| (client.desk.clone(), client.permissions.clone())).collect()
}

//! Leaving a cluster.

use crate::{
    client::{self, Client, ClientError},
    keys::Keys,
    lease::Lease,
};

/// Gives this node's subnet back: its entry goes if it is this node's still.
pub async fn leave(client: &Client, prefix: &str, node: &str) -> Result<Vec<String>, ClientError> {
    let keys = Keys {
        prefix: prefix.to_owned(),
    };
    let list = client.list(&keys.subnets(), None).await?;
    let mut left = Vec::new();
    for kv in &list.keys {
        let lease = Lease::read(&kv.value);
        if lease.is_ok_and(|lease| lease.node() == Some(node)) {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let subnet = key.strip_prefix(&keys.subnets()).unwrap_or(&key).to_owned();
            let used = format!("{}{subnet}", keys.used());
            let operations = vec![client::delete(&key), client::put(&used, node, 0)];
            let guard = client::unchanged(&key, kv.mod_revision);
            if client.transact(vec![guard], operations).await? {
                left.push(subnet);
                if kv.lease != 0 {
                    client.revoke(kv.lease).await?;
                }
            }
        }
    }
    Ok(left)
}

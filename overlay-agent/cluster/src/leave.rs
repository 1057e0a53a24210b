//! Leaving a cluster.

use crate::{
    client::{self, Client, ClientError},
    keys::Keys,
    lease::Lease,
};

/// An entry that changes meanwhile is looked at again, so often at most.
const TRIES: u8 = 3;

/// Gives this node's subnet back: its entry goes if it is this node's still. Nothing is left for a
/// node that has no entry.
pub async fn leave(client: &Client, prefix: &str, node: &str) -> Result<Vec<String>, ClientError> {
    let keys = Keys {
        prefix: prefix.to_owned(),
    };
    let mut left = Vec::new();
    for _ in 0..TRIES {
        let list = client.list(&keys.subnets()).await?;
        let own = list.keys.iter().filter(|kv| {
            let lease = Lease::read(&kv.value);
            lease.is_ok_and(|lease| lease.node() == Some(node))
        });
        let mut again = false;
        for kv in own {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let subnet = key.strip_prefix(&keys.subnets()).unwrap_or(&key).to_owned();
            let used = format!("{}{subnet}", keys.used());
            let operations = vec![client::delete(&key), client::put(&used, node, 0)];
            let guard = client::unchanged(&key, kv.mod_revision);
            if !client.transact(vec![guard], operations).await? {
                again = true;
                continue;
            }
            left.push(subnet);
            if kv.lease != 0 {
                // The entry has gone, which is all that was asked for. A lease that cannot be
                // revoked, or has ended just now, has nothing left and ends within a day.
                let _ = client.revoke(kv.lease).await;
            }
        }
        if !again {
            return Ok(left);
        }
    }
    Err(ClientError::Refused {
        call: "leave",
        cause: format!("the entry of node {node} is written again each time; end its agent"),
    })
}

//! A client of etcd that does what is asked, once: who asks tries again, with another member.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

pub use crate::failure::ClientError;
use crate::{
    access::Access,
    failure::whole,
    login::{self, Login},
    proto::{
        AuthenticateRequest, AuthenticateResponse, Compare, CompareResult, CompareTarget,
        DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
        LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, Op, PutRequest,
        RangeRequest, RangeResponse, RequestOp, ResponseHeader, Target, TxnRequest, TxnResponse,
        WatchCreateRequest, WatchRequest, WatchResponse, WatchUnion,
    },
};

/// No call takes longer.
const CALL: Duration = Duration::from_secs(5);
/// A member that says nothing for so long is asked whether it is there. etcd refuses clients that
/// ask more often than every five seconds.
const PING: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PONG: Duration = Duration::from_secs(5);
/// Keys in one answer: etcd's limit is a message of 1.5 MiB, ours one of 4 MiB.
const PAGE: i64 = 1000;

/// A connection to one member.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    login: Option<Arc<Login>>,
}

/// Keys as they were at one revision.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The cluster, and the revision.
    pub header: ResponseHeader,
    /// All keys.
    pub keys: Vec<KeyValue>,
}

impl Client {
    /// Connects to a member, and logs in there.
    pub async fn connect(url: &str, access: &Access) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(url.to_owned());
        let endpoint = endpoint.map_err(|_| ClientError::Url(url.to_owned()))?;
        let failed = |error: &tonic::transport::Error| ClientError::Connect {
            url: url.to_owned(),
            cause: whole(error),
        };
        let mut endpoint = endpoint
            .connect_timeout(CALL)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true);
        if let Some(tls) = login::tls(url, access)? {
            endpoint = endpoint.tls_config(tls).map_err(|error| failed(&error))?;
        }
        let channel = timeout(CALL, endpoint.connect()).await;
        let channel = channel.map_err(|_| ClientError::Timeout("connect"))?;
        let client = Self {
            channel: channel.map_err(|error| failed(&error))?,
            login: Login::of(access),
        };
        client.log_in().await?;
        Ok(client)
    }

    /// Gets a token, which lasts for minutes only.
    async fn log_in(&self) -> Result<(), ClientError> {
        let Some(login) = &self.login else {
            return Ok(());
        };
        let request = AuthenticateRequest {
            name: login.name.clone(),
            password: login.password(),
        };
        // The token of before would be looked at.
        login.renew(None)?;
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: Result<AuthenticateResponse, _> = self.call_once("log in", path, request).await;
        match answer {
            Ok(answer) => login.renew(Some(&answer.token)),
            // There are no users there, or not yet.
            Err(ClientError::Refused { cause, .. }) if cause.contains("is not enabled") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All keys that begin with `prefix`, at one revision: the newest.
    pub async fn list(&self, prefix: &str) -> Result<List, ClientError> {
        let range_end = after(prefix);
        let mut list = List::default();
        let mut key = prefix.as_bytes().to_vec();
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: PAGE,
                revision: list.header.revision,
            };
            let page: RangeResponse = self
                .call("list keys", "/etcdserverpb.KV/Range", request)
                .await?;
            if list.header.revision == 0 {
                list.header = page.header.unwrap_or_default();
            }
            let end = page.kvs.last().map(|end| end.key.clone());
            list.keys.extend(page.kvs);
            match end {
                Some(end) if page.more => key = [end, vec![0]].concat(),
                _ => return Ok(list),
            }
        }
    }

    /// One key, if it is there.
    pub async fn get(&self, key: &str) -> Result<(ResponseHeader, Option<KeyValue>), ClientError> {
        let request = RangeRequest {
            key: key.as_bytes().to_vec(),
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self
            .call("read a key", "/etcdserverpb.KV/Range", request)
            .await?;
        Ok((
            answer.header.unwrap_or_default(),
            answer.kvs.into_iter().next(),
        ))
    }

    /// Does all of `operations` if `compare` holds; whether it did.
    pub async fn transact(
        &self,
        compare: Vec<Compare>,
        operations: Vec<RequestOp>,
    ) -> Result<bool, ClientError> {
        let request = TxnRequest {
            compare,
            success: operations,
            failure: Vec::new(),
        };
        let answer: TxnResponse = self.call("write", "/etcdserverpb.KV/Txn", request).await?;
        Ok(answer.succeeded)
    }

    /// A new lease of so many seconds.
    pub async fn grant(&self, ttl: i64) -> Result<i64, ClientError> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let path = "/etcdserverpb.Lease/LeaseGrant";
        let answer: LeaseGrantResponse = self.call("get a lease", path, request).await?;
        Ok(answer.id)
    }

    /// Gives a lease back.
    pub async fn revoke(&self, id: i64) -> Result<(), ClientError> {
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        let request = LeaseRevokeRequest { id };
        let _: LeaseRevokeResponse = self.call("give a lease back", path, request).await?;
        Ok(())
    }

    /// Has a lease last from now on; whether there is one.
    pub async fn keep_alive(&self, id: i64) -> Result<bool, ClientError> {
        const CALLED: &str = "renew a lease";
        let failed = |status: Status| ClientError::of(CALLED, &status);
        let attempt = async || {
            // etcd's grpc-proxy cancels what it was asked once no more can follow.
            let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
            let requests = requests.chain(tokio_stream::pending());
            let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
            let mut grpc = self.ready(CALLED).await?;
            let codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default();
            let answers = grpc.streaming(self.demanding(requests), path, codec).await;
            let mut answers = answers.map_err(failed)?.into_inner();
            answers.message().await.map_err(failed)
        };
        let answer = timeout(CALL, self.with_token(attempt)).await;
        let answer = answer.map_err(|_| ClientError::Timeout(CALLED))??;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Watches one key, and those that begin with `prefix`, from a revision on. A user needs no
    /// right to any other.
    pub async fn watch(
        &self,
        (key, prefix): (&str, &str),
        start_revision: i64,
    ) -> Result<Streaming<WatchResponse>, ClientError> {
        const CALLED: &str = "watch keys";
        let create = |key: &str, range_end: Vec<u8>| WatchRequest {
            request_union: Some(WatchUnion::Create(WatchCreateRequest {
                key: key.as_bytes().to_vec(),
                range_end,
                start_revision,
                progress_notify: true,
            })),
        };
        let creates = [create(key, Vec::new()), create(prefix, after(prefix))];
        // The watch lasts as long as requests may follow.
        let requests = tokio_stream::iter(creates).chain(tokio_stream::pending());
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let mut grpc = self.ready(CALLED).await?;
        let opened = grpc.streaming(self.demanding(requests), path, ProstCodec::default());
        let opened = timeout(CALL, opened).await;
        let opened = opened.map_err(|_| ClientError::Timeout(CALLED))?;
        Ok(opened
            .map_err(|status| ClientError::of(CALLED, &status))?
            .into_inner())
    }

    async fn call<Q, A>(
        &self,
        called: &'static str,
        path: &'static str,
        request: Q,
    ) -> Result<A, ClientError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.with_token(async || self.call_once(called, path, request.clone()).await)
            .await
    }

    /// Does it again with a new token, if the one before is of no use any more.
    async fn with_token<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        match attempt().await {
            Err(ClientError::Token { .. }) if self.login.is_some() => {
                self.log_in().await?;
                attempt().await
            }
            outcome => outcome,
        }
    }

    async fn call_once<Q, A>(
        &self,
        called: &'static str,
        path: &'static str,
        request: Q,
    ) -> Result<A, ClientError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let answer = timeout(CALL, async {
            let mut grpc = self.ready(called).await?;
            let answer = grpc.unary(self.demanding(request), path, ProstCodec::default());
            answer
                .await
                .map_err(|status| ClientError::of(called, &status))
        });
        let answer = answer.await.map_err(|_| ClientError::Timeout(called))??;
        Ok(answer.into_inner())
    }

    async fn ready(&self, called: &'static str) -> Result<Grpc<Channel>, ClientError> {
        let mut grpc = Grpc::new(self.channel.clone());
        let ready = timeout(CALL, grpc.ready()).await;
        let ready = ready.map_err(|_| ClientError::Timeout(called))?;
        ready.map_err(|error| ClientError::Refused {
            call: called,
            cause: whole(&error),
        })?;
        Ok(grpc)
    }

    /// A member that has lost the others answers nothing rather than what was.
    fn demanding<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let yes = MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", yes);
        if let Some(login) = &self.login {
            login.sign(&mut request);
        }
        request
    }
}

/// The first key that does not begin with `prefix`, which ends in a byte less than 255.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// Holds while a key has been written so often; 0: while it is not there.
pub fn version(key: &str, version: i64) -> Compare {
    compare(key, CompareTarget::Version, Target::Version(version))
}

/// Holds while a key has not changed since a revision.
pub fn unchanged(key: &str, mod_revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, Target::ModRevision(mod_revision))
}

fn compare(key: &str, target: CompareTarget, union: Target) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.as_bytes().to_vec(),
        union: Some(union),
    }
}

/// Writes a key, with a lease if that is not 0.
pub fn put(key: &str, value: &str, lease: i64) -> RequestOp {
    RequestOp {
        request: Some(Op::Put(PutRequest {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            lease,
        })),
    }
}

/// Removes a key.
pub fn delete(key: &str) -> RequestOp {
    RequestOp {
        request: Some(Op::Delete(DeleteRangeRequest {
            key: key.as_bytes().to_vec(),
            range_end: Vec::new(),
        })),
    }
}

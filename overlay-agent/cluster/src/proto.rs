//! The part of etcd's protocol that is spoken here, by hand, so that no compiler of protocols is
//! needed to build it (etcd, `api/etcdserverpb/rpc.proto`, `api/mvccpb/kv.proto`).

use prost::{Enumeration, Message, Oneof};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $key:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        #[allow(missing_docs, reason = "the protocol's own names, which its documentation explains")]
        pub struct $name { $($(#[$field])* pub $key: $type),* }
    )*};
}

messages! {
    /// The header of each answer.
    ResponseHeader {
        #[prost(uint64, tag = "1")] cluster_id: u64,
        #[prost(uint64, tag = "2")] member_id: u64,
        #[prost(int64, tag = "3")] revision: i64,
        #[prost(uint64, tag = "4")] raft_term: u64,
    }
    /// A key and its value.
    KeyValue {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(int64, tag = "2")] create_revision: i64,
        #[prost(int64, tag = "3")] mod_revision: i64,
        #[prost(int64, tag = "4")] version: i64,
        #[prost(bytes = "vec", tag = "5")] value: Vec<u8>,
        #[prost(int64, tag = "6")] lease: i64,
    }
    /// Reads keys from `key` to before `range_end`.
    RangeRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] range_end: Vec<u8>,
        #[prost(int64, tag = "3")] limit: i64,
        #[prost(int64, tag = "4")] revision: i64,
    }
    /// Its answer.
    RangeResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] kvs: Vec<KeyValue>,
        #[prost(bool, tag = "3")] more: bool,
        #[prost(int64, tag = "4")] count: i64,
    }
    /// Writes one key.
    PutRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] value: Vec<u8>,
        #[prost(int64, tag = "3")] lease: i64,
    }
    /// Removes keys.
    DeleteRangeRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] range_end: Vec<u8>,
    }
    /// One operation of a transaction.
    RequestOp {
        #[prost(oneof = "Op", tags = "2, 3")] request: Option<Op>,
    }
    /// A condition of a transaction.
    Compare {
        #[prost(enumeration = "CompareResult", tag = "1")] result: i32,
        #[prost(enumeration = "CompareTarget", tag = "2")] target: i32,
        #[prost(bytes = "vec", tag = "3")] key: Vec<u8>,
        #[prost(oneof = "Target", tags = "4, 6")] union: Option<Target>,
    }
    /// Operations that are done all at once, if all comparisons hold.
    TxnRequest {
        #[prost(message, repeated, tag = "1")] compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")] success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")] failure: Vec<RequestOp>,
    }
    /// Its answer, as far as it is looked at.
    TxnResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(bool, tag = "2")] succeeded: bool,
    }
    /// Asks for a lease.
    LeaseGrantRequest {
        #[prost(int64, tag = "1")] ttl: i64,
        #[prost(int64, tag = "2")] id: i64,
    }
    /// Its answer.
    LeaseGrantResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
        #[prost(string, tag = "4")] error: String,
    }
    /// Gives a lease back; its keys go with it.
    LeaseRevokeRequest {
        #[prost(int64, tag = "1")] id: i64,
    }
    /// Its answer.
    LeaseRevokeResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
    }
    /// Makes a lease last from now on.
    LeaseKeepAliveRequest {
        #[prost(int64, tag = "1")] id: i64,
    }
    /// Its answer; a TTL of 0 says that there is no such lease.
    LeaseKeepAliveResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
    }
    /// Shows a password for a token.
    AuthenticateRequest {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] password: String,
    }
    /// Its answer.
    AuthenticateResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(string, tag = "2")] token: String,
    }
    /// Opens a watch.
    WatchRequest {
        #[prost(oneof = "WatchUnion", tags = "1")] request_union: Option<WatchUnion>,
    }
    /// On keys from `key` to before `range_end`, from a revision on.
    WatchCreateRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] range_end: Vec<u8>,
        #[prost(int64, tag = "3")] start_revision: i64,
        #[prost(bool, tag = "4")] progress_notify: bool,
    }
    /// Events, or what has become of a watch.
    WatchResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] watch_id: i64,
        #[prost(bool, tag = "3")] created: bool,
        #[prost(bool, tag = "4")] canceled: bool,
        #[prost(int64, tag = "5")] compact_revision: i64,
        #[prost(string, tag = "6")] cancel_reason: String,
        #[prost(message, repeated, tag = "11")] events: Vec<Event>,
    }
    /// One change.
    Event {
        #[prost(enumeration = "EventType", tag = "1")] r#type: i32,
        #[prost(message, optional, tag = "2")] kv: Option<KeyValue>,
    }
}

/// The result that a comparison asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// That both are the same.
    Equal = 0,
}

/// The attribute of a key that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    /// How often it was written since it came; 0 when it is not there.
    Version = 0,
    /// The revision of its last change.
    Mod = 2,
}

/// With what it is compared.
#[derive(Clone, PartialEq, Oneof)]
pub enum Target {
    /// A version.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// A revision.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

/// The kinds of operations.
#[derive(Clone, PartialEq, Oneof)]
pub enum Op {
    /// Writes.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Removes.
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
}

/// Requests on a stream of watches.
#[derive(Clone, PartialEq, Oneof)]
pub enum WatchUnion {
    /// A new watch.
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
}

/// The type of a key's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// It was written.
    Put = 0,
    /// It was removed, or its lease has ended.
    Delete = 1,
}

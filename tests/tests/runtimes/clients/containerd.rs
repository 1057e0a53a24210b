//! containerd, asked by `ctr` and, as a kubelet asks it, by the runtime interface (CRI).

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{packages::Release, poll};
use prost::Message;

use super::room::Room;

/// What is needed of `PodSandboxConfig` (`api.proto` of cri-api, v1).
#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, repeated, tag = "5")]
    port_mappings: Vec<PortMapping>,
    #[prost(message, optional, tag = "8")]
    linux: Option<Linux>,
}

/// `PodSandboxMetadata`
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct PortMapping {
    #[prost(int32, tag = "2")]
    container_port: i32,
    #[prost(int32, tag = "3")]
    host_port: i32,
}

/// `LinuxPodSandboxConfig`
#[derive(Clone, PartialEq, Message)]
struct Linux {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<Sandbox>,
}

/// Requests and answers that are an id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

/// `ListPodSandboxResponse`, of each its id.
#[derive(Clone, PartialEq, Message)]
struct Sandboxes {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Id>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// `StatusResponse`
#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Conditions>,
}

#[derive(Clone, PartialEq, Message)]
struct Conditions {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

/// `RuntimeCondition`
#[derive(Clone, PartialEq, Message)]
struct Condition {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

/// A daemon in a room.
pub(super) struct Containerd<'a> {
    pub(super) room: &'a Room,
    daemon: Child,
}

impl<'a> Containerd<'a> {
    pub(super) fn start(room: &'a Room, release: Release) -> Result<Self> {
        let cri = match release {
            Release::Bookworm => {
                "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'localhost/pause:1'\n\
                 restrict_oom_score_adj = true\n\
                 [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/usr/lib/cni'\n\
                 [plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n"
            }
            Release::Forky => {
                "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'\n\
                 [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'localhost/pause:1'\n\
                 [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n\
                 [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/usr/lib/cni']\n"
            }
        };
        let config = format!("{cri}[grpc]\naddress = '/run/containerd.sock'\n");
        room.write("etc/containerd.toml", config)?;
        let log = fs::File::create(room.path("containerd.log"))?;
        let daemon = room
            .command(&["containerd", "--config", "/etc/containerd.toml"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let started = Self { room, daemon };
        poll::until_ok(|| started.ctr("version"))?;
        Ok(started)
    }

    /// Runs `ctr` with words; what it says.
    pub(super) fn ctr(&self, words: &str) -> Result<String> {
        let all = ["ctr", "--address", "/run/containerd.sock"];
        self.room
            .tell(&all.into_iter().chain(words.split(' ')).collect::<Vec<_>>())
    }

    /// The start of a `ctr run` of a container that goes with the lab.
    pub(super) fn run(&self, id: &str, options: &str, script: &str) -> Result<String> {
        let cgroup = format!("{}/{id}", self.room.cgroup());
        let mark = self.room.mark();
        let mut words = vec!["ctr", "--address", "/run/containerd.sock", "run", "--cni"];
        words.extend(options.split(' '));
        words.extend([
            "--env", &mark, "--cgroup", &cgroup, "--rootfs", "/rootfs", id,
        ]);
        words.extend(["/bin/sh", "-c", script]);
        self.room.tell(&words)
    }

    /// Makes an image of busybox of what the room has, and gives it to the daemon for pods, whose
    /// first process then runs a script.
    pub(super) fn take_image(&self, script: &str) -> Result<()> {
        let archive = self.room.path("rootfs.tar");
        let packed = Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(self.room.path("rootfs"))
            .arg(".")
            .status()?;
        ensure!(packed.success(), "tar has failed");
        let environment = format!("ENV {}", self.room.mark());
        let command = format!("CMD {}", serde_json::json!(["/bin/sh", "-c", script]));
        self.room.tell(&[
            "podman",
            "import",
            "--quiet",
            "--change",
            &command,
            "--change",
            &environment,
            "/rootfs.tar",
            "localhost/pause:1",
        ])?;
        self.room.tell(&[
            "podman",
            "save",
            "--quiet",
            "--format",
            "oci-archive",
            "--output",
            "/pause.tar",
            "localhost/pause:1",
        ])?;
        // Before 2.0 ctr knows only this way, which needs no word.
        let local = self.ctr("-n k8s.io image import --local --snapshotter native /pause.tar");
        local.or_else(|_| self.ctr("-n k8s.io image import --snapshotter native /pause.tar"))?;
        Ok(())
    }

    /// Starts a pod without containers, as a kubelet does; its id.
    pub(super) fn run_pod(&self, name: &str, ports: &[(u16, u16)]) -> Result<String> {
        let answer: Id = self.call("RunPodSandbox", &self.pod(name, ports), None)?;
        Ok(answer.id)
    }

    /// Starts a pod, and gives up in so many milliseconds.
    pub(super) fn run_pod_impatiently(&self, name: &str, milliseconds: u64) -> Result<String> {
        let answer: Id = self.call("RunPodSandbox", &self.pod(name, &[]), Some(milliseconds))?;
        Ok(answer.id)
    }

    fn pod(&self, name: &str, ports: &[(u16, u16)]) -> RunRequest {
        let mapping = |&(host, container): &(u16, u16)| PortMapping {
            container_port: container.into(),
            host_port: host.into(),
        };
        let config = Sandbox {
            metadata: Some(Metadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
            }),
            hostname: name.to_owned(),
            log_directory: "/tmp".to_owned(),
            port_mappings: ports.iter().map(mapping).collect(),
            linux: Some(Linux {
                cgroup_parent: self.room.cgroup(),
            }),
        };
        RunRequest {
            config: Some(config),
        }
    }

    pub(super) fn stop_pod(&self, id: &str) -> Result<()> {
        let id = Id { id: id.to_owned() };
        self.call::<Nothing>("StopPodSandbox", &id, None).map(drop)
    }

    pub(super) fn remove_pod(&self, id: &str) -> Result<()> {
        let id = Id { id: id.to_owned() };
        self.call::<Nothing>("RemovePodSandbox", &id, None)
            .map(drop)
    }

    pub(super) fn pods(&self) -> Result<Vec<String>> {
        let all: Sandboxes = self.call("ListPodSandbox", &Nothing {}, None)?;
        Ok(all.items.into_iter().map(|it| it.id).collect())
    }

    /// Whether pods could have a network, and else why not.
    pub(super) fn network_is_ready(&self) -> Result<Result<(), String>> {
        let answer: StatusResponse = self.call("Status", &Nothing {}, None)?;
        let all = answer.status.context("no status")?.conditions;
        let network = all.into_iter().find(|it| it.name == "NetworkReady");
        let network = network.context("nothing about the network")?;
        Ok(if network.status {
            Ok(())
        } else {
            Err(network.message)
        })
    }

    /// A unary gRPC call: an HTTP/2 request whose body has five bytes before the message, and a
    /// status in the trailers.
    fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        milliseconds: Option<u64>,
    ) -> Result<A> {
        let files = tempfile::tempdir()?;
        let [body, head, answer] = ["body", "head", "answer"].map(|name| files.path().join(name));
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len())?.to_be_bytes();
        fs::write(&body, [&[0], &length[..], &message].concat())?;
        let mut curl = Command::new("curl");
        if let Some(milliseconds) = milliseconds {
            let seconds = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
            curl.args(["--max-time", &seconds]);
        }
        let said = curl
            .args(["--silent", "--show-error", "--http2-prior-knowledge"])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .arg("--unix-socket")
            .arg(self.room.path("run/containerd.sock"))
            .arg("--dump-header")
            .arg(&head)
            .arg("--output")
            .arg(&answer)
            .arg("--data-binary")
            .arg(format!("@{}", body.display()))
            .arg(format!(
                "http://localhost/runtime.v1.RuntimeService/{method}"
            ))
            .output()?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "{method}: {complaint}");
        let head = fs::read_to_string(&head)?;
        let fine = head.lines().any(|line| line.trim() == "grpc-status: 0");
        ensure!(fine, "{method}: {head}");
        let answer = fs::read(&answer)?;
        let message = answer.get(5..).context("no message")?;
        Ok(A::decode(message)?)
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // nsenter has become containerd.
        let ended = self.daemon.kill().and_then(|()| self.daemon.wait());
        if let Err(error) = ended {
            eprintln!("containerd was not ended: {error}");
        }
    }
}

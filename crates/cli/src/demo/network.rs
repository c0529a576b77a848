//! The four nodes of the demo, as processes of their own: made, started, killed, asked.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bureau_core::{BureauCode, Limits, Roster, Verifier, roster::Anchor};
use bureau_proto::admin::v1::{
    ExplainMessageRequest, Explanation, GetStatusRequest, LinkState, ListPeersRequest,
    ListQueueRequest,
};
use tokio::{
    process::{Child, Command},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{DemoError, proxy::Cable};
use crate::{
    client::{AdminFace, Desk, DeskFace},
    error::CommandError,
    net::{self, Links, Plan, Ports},
    wire,
};

/// The bureaus that send and receive; the first is the one that loses nothing but its patience.
pub(super) const BUREAUS: [&str; 3] = ["FR", "KE", "BR"];
/// The hub.
pub(super) const HUB: &str = "IPSG";
/// The one that is cut off and killed.
pub(super) const VICTIM: &str = "KE";
/// The one that has a line of its own to the victim.
pub(super) const NEIGHBOR: &str = "FR";

/// How long a node may take to answer.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long a node may take to end after SIGTERM; it drains for 10 s at most.
const STOP_MAX: Duration = Duration::from_secs(12);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Below the ports that systems give to outgoing connections, so that none of those takes the
/// port of a node while it is dead.
const PORTS: std::ops::Range<u16> = 10_240..32_000;
const PORT_TRIES_MAX: usize = 10_000;

/// The network on this machine.
pub(super) struct Network {
    directory: PathBuf,
    nodes: Vec<Node>,
    /// From the hub to the victim, and the other way: either side dials.
    to_hub: [Cable; 2],
    /// The line between the victim and its neighbor, likewise.
    straight: [Cable; 2],
    verifier: Verifier,
}

/// One node, and the desk beside it.
pub(super) struct Node {
    pub(super) code: BureauCode,
    config: PathBuf,
    log: PathBuf,
    desk: Desk,
    child: Option<Child>,
}

impl Network {
    /// Makes four nodes and starts none.
    pub(super) async fn make(directory: &Path) -> Result<Self, CommandError> {
        let ports = free_ports(3 * (BUREAUS.len() + 1)).map_err(DemoError::Ports)?;
        let (plan, [to_hub, straight]) = plan(&ports).await?;
        let owned = directory.to_owned();
        let made = spawn_blocking(move || net::init(&owned, &plan, wire::now()))
            .await
            .map_err(|source| CommandError::Task { task: "making the network", source })??;
        let anchor = Anchor { keys: vec![made.root_key], threshold: 1 };
        let path = directory.join("root/roster.bin");
        let roster = std::fs::read(&path).map_err(|source| CommandError::Read { path, source })?;
        let roster =
            Roster::verify(roster.into(), &made.network, &anchor).map_err(DemoError::Roster)?;
        let mut nodes = Vec::new();
        for bureau in made.bureaus {
            nodes.push(Node {
                code: bureau.code,
                config: bureau.node_config,
                log: directory.join(format!("{}.log", bureau.code)),
                desk: Desk::open(Some(&bureau.desk_profile)).await?,
                child: None,
            });
        }
        let verifier = Verifier::new(Arc::new(roster), Limits::default());
        Ok(Self { directory: directory.to_owned(), nodes, to_hub, straight, verifier })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Checks what the nodes say by signature, as any third party can.
    pub(super) const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Starts every node, and waits until each answers.
    pub(super) async fn start(&mut self) -> Result<(), CommandError> {
        for node in &mut self.nodes {
            node.start()?;
        }
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    pub(super) fn node(&mut self, code: &str) -> Result<&mut Node, DemoError> {
        let missing = || DemoError::NoNode(code.to_owned());
        self.nodes.iter_mut().find(|node| node.code.as_str() == code).ok_or_else(missing)
    }

    /// Cuts the line to the hub; the straight one may be cut before.
    pub(super) fn cut_victim_off(&self) {
        self.to_hub.iter().for_each(Cable::cut);
    }

    pub(super) fn cut_straight(&self) {
        self.straight.iter().for_each(Cable::cut);
    }

    /// Lets so many bytes a second over the straight line, each way; 0: as many as there are.
    pub(super) fn slow_down_straight(&self, bytes_per_second: u64) {
        self.straight.iter().for_each(|cable| cable.slow_down(bytes_per_second));
    }

    /// Mends every line, at its full rate.
    pub(super) fn mend(&self) {
        self.slow_down_straight(0);
        self.to_hub.iter().chain(&self.straight).for_each(Cable::mend);
    }

    /// Waits until a node has its links to these bureaus up.
    pub(super) async fn linked(
        &mut self,
        node: &str,
        bureaus: &[&str],
        until: Instant,
    ) -> Result<(), CommandError> {
        let admin = self.node(node)?.admin_face().await?;
        loop {
            let up = linked(&admin).await?;
            if bureaus.iter().all(|bureau| up.iter().any(|code| code == bureau)) {
                return Ok(());
            }
            if Instant::now() >= until {
                let node = node.to_owned();
                return Err(DemoError::NotLinked { node, up }.into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Why a message is not at the victim yet, as a node tells its operator.
    pub(super) async fn why(&mut self, node: &str, id: &str) -> Result<Explanation, CommandError> {
        let admin = self.node(node)?.admin_face().await?;
        let mut client = admin.client.clone();
        let recipient = VICTIM.to_owned();
        let request = ExplainMessageRequest { message_id: id.to_owned(), recipient };
        let explained = admin.call(client.explain_message(request)).await?;
        let explanation = explained.explanations.into_iter().next();
        explanation.ok_or(CommandError::Incomplete("the explanation"))
    }

    /// How many messages for the victim wait at the hub.
    pub(super) async fn waiting(&mut self) -> Result<u64, CommandError> {
        let admin = self.node(HUB)?.admin_face().await?;
        let mut client = admin.client.clone();
        let request = ListQueueRequest {
            recipient: VICTIM.to_owned(),
            page_size: 1,
            ..ListQueueRequest::default()
        };
        let page = admin.call(client.list_queue(request)).await?;
        Ok(page
            .depths
            .iter()
            .filter(|depth| depth.recipient == VICTIM)
            .map(|depth| depth.messages)
            .sum())
    }

    /// Ends every node as an operator would, and everything else.
    pub(super) async fn stop(mut self) -> Result<(), CommandError> {
        for node in &self.nodes {
            node.signal(rustix::process::Signal::TERM)?;
        }
        let mut outcome = Ok(());
        for node in &mut self.nodes {
            if let Err(error) = node.ended().await {
                outcome = Err(error);
            }
        }
        for cable in self.to_hub.into_iter().chain(self.straight) {
            cable.remove().await;
        }
        outcome.map_err(CommandError::from)
    }
}

impl Node {
    /// Starts its process. It ends with this one.
    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        let failed = |source| DemoError::Start { bureau: self.code, source };
        let program = std::env::current_exe().map_err(failed)?;
        let log = File::options().append(true).create(true).open(&self.log).map_err(failed)?;
        let mut command = Command::new(program);
        // What the caller's environment says is meant for the caller.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BUREAU_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--with-parent", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true);
        self.child = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Waits until it answers.
    pub(super) async fn ready(&mut self) -> Result<(), CommandError> {
        let until = Instant::now() + READY_MAX;
        loop {
            let error = match self.answers().await {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            let ended = self.child.as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = ended {
                return Err(self.died(status).into());
            }
            if Instant::now() >= until {
                let (bureau, log) = (self.code, self.log.clone());
                return Err(DemoError::NotReady { bureau, log, error: Box::new(error) }.into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn answers(&self) -> Result<(), CommandError> {
        let admin = self.admin_face().await?;
        let mut client = admin.client.clone();
        admin.call(client.get_status(GetStatusRequest {})).await?;
        Ok(())
    }

    /// Ends its process as a power cut would.
    pub(super) async fn kill(&mut self) -> Result<(), DemoError> {
        self.signal(rustix::process::Signal::KILL)?;
        if let Some(mut child) = self.child.take() {
            child.wait().await.map_err(|source| DemoError::Stop { bureau: self.code, source })?;
        }
        Ok(())
    }

    pub(super) async fn desk_face(&self) -> Result<DeskFace, CommandError> {
        self.desk.desk_face().await
    }

    async fn admin_face(&self) -> Result<AdminFace, CommandError> {
        self.desk.admin_face(None).await
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<(), DemoError> {
        let Some(child) = &self.child else { return Ok(()) };
        let raw = child.id().and_then(|id| i32::try_from(id).ok());
        // A process that was waited for has no id any more, and gets no signal.
        let Some(pid) = raw.and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
        rustix::process::kill_process(pid, signal)
            .map_err(|error| DemoError::Stop { bureau: self.code, source: error.into() })
    }

    async fn ended(&mut self) -> Result<(), DemoError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let failed = |source| DemoError::Stop { bureau: self.code, source };
        match timeout(STOP_MAX, child.wait()).await {
            Ok(waited) => match waited.map_err(failed)? {
                status if status.success() => Ok(()),
                status => Err(self.died(status)),
            },
            Err(_elapsed) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    fn died(&self, status: ExitStatus) -> DemoError {
        DemoError::Died { bureau: self.code, status, log: self.log.clone() }
    }
}

/// Three bureaus that know the hub, and a straight line from the victim to its neighbor; every way
/// to the victim over cables that can be cut.
async fn plan(ports: &[u16]) -> Result<(Plan, [[Cable; 2]; 2]), CommandError> {
    let code =
        |text: &str| text.parse::<BureauCode>().map_err(|_| DemoError::NoNode(text.to_owned()));
    let bureaus = BUREAUS.map(code).into_iter().collect::<Result<Vec<_>, _>>()?;
    let (hub, victim, neighbor) = (code(HUB)?, code(VICTIM)?, code(NEIGHBOR)?);
    let of = |place: usize| Ports {
        desk: ports[3 * place],
        link: ports[3 * place + 1],
        admin: ports[3 * place + 2],
        metrics: None,
    };
    let name = |_| DemoError::NoNode(HUB.to_owned());
    let network = "demo.example".parse().map_err(name)?;
    let desk = "desk".parse().map_err(|_| DemoError::NoNode("desk".to_owned()))?;
    let plan =
        Plan::new(network, &bureaus, &[hub], Links::Hub, desk, of).map_err(net::InitError::from)?;
    let mut plan = plan.straight(neighbor, victim);
    let mut lines = Vec::new();
    for other in [hub, neighbor] {
        let mut line = Vec::new();
        for (from, to) in [(other, victim), (victim, other)] {
            let member = plan.members().iter().find(|member| member.code == to);
            let port = member.map_or(0, |member| member.ports.link);
            let face = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let cable = Cable::to(face).await.map_err(DemoError::Ports)?;
            plan = plan.detour(from, to, cable.address());
            line.push(cable);
        }
        let line: [Cable; 2] = line.try_into().map_err(|_| DemoError::NoNode(other.to_string()))?;
        lines.push(line);
    }
    let lines = lines.try_into().map_err(|_| DemoError::NoNode(HUB.to_owned()))?;
    Ok((plan, lines))
}

/// The bureaus whose link to this node is up.
async fn linked(admin: &AdminFace) -> Result<Vec<String>, CommandError> {
    let mut client = admin.client.clone();
    let listed = admin.call(client.list_peers(ListPeersRequest {})).await?;
    let up = listed.peers.into_iter().filter(|peer| peer.state() == LinkState::Up);
    Ok(up.map(|peer| peer.bureau).collect())
}

/// Ports that nobody listens on.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..PORT_TRIES_MAX {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let port = PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start);
        // Held until all are found, so that none is found twice.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
        if held.len() == count {
            return held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_are_distinct_and_not_for_outgoing_connections() {
        let ports = free_ports(12).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 12);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }

    #[tokio::test]
    async fn the_victim_is_reached_over_cables_only() {
        let ports: Vec<u16> = (1..=12).collect();
        let (plan, cables) = plan(&ports).await.unwrap();
        let peers = |code: &str| {
            let member = plan.members().iter().find(|member| member.code.as_str() == code);
            plan.peers(member.unwrap()).map(|(peer, to)| (peer.to_string(), to)).collect::<Vec<_>>()
        };
        let link = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addresses = |line: &[Cable; 2]| line.each_ref().map(Cable::address);
        let [[to_victim, to_hub], [from_fr, to_fr]] = cables.each_ref().map(addresses);
        let named = |code: &str, to| (code.to_owned(), to);
        assert_eq!(peers("FR"), [named("KE", from_fr), named("IPSG", link(11))]);
        assert_eq!(peers("KE"), [named("FR", to_fr), named("IPSG", to_hub)]);
        assert_eq!(peers("BR"), [named("IPSG", link(11))]);
        let hub = [("FR", link(2)), ("KE", to_victim), ("BR", link(8))];
        assert_eq!(peers("IPSG"), hub.map(|(code, to)| (code.to_owned(), to)));
    }
}

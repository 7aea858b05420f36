//! One TCP connection: faults at accept, login, then the loop of the full-feature phase. All
//! waiting is here; what PDUs mean is decided in `login` and `session`.

use crate::events::{Event, SessionId};
use crate::inbox::Inbox;
use crate::keys::DEFAULT_SEGMENT_BYTES;
use crate::login::Login;
use crate::login_answer::{LoginAnswer, Sending};
use crate::outbox::{Outbox, of_one_call};
use crate::pdu::{self, Bhs, Digests};
use crate::script::{ConnectFault, LoginFault};
use crate::session::{Flow, Session};
use crate::sessions::{Registration, Sessions};
use crate::shared::Shared;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long a connection that we close may take to close its side.
const LINGER: Duration = Duration::from_millis(500);
/// Answers gathered before they are sent although more requests wait.
const FLUSH_BYTES: usize = 4 << 20;
/// The first StatSN. It wraps early, so that every test meets the wrap.
const FIRST_STAT_SN: u32 = 0xffff_fffc;

/// Serves a connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let mut cut = shared.cut.subscribe();
    shared.log.totals.connections.add(1);
    shared.log.record(Event::Connected);
    let mut connection = Connection {
        frozen_up_to: shared.frozen_up_to.subscribe(),
        number: shared.next_connection(),
        shared: Arc::clone(&shared),
        stream,
        inbox: Inbox::new(DEFAULT_SEGMENT_BYTES as usize),
        session: None,
    };
    tokio::select! {
        _ = cut.changed() => {}
        ended = connection.run() => {
            if let Err(error) = ended {
                log::debug!("connection ended: {error}");
            }
        }
    }
    let session = connection.session;
    drop(connection);
    // It may have been cut between entering the session and serving it.
    if let Some(id) = session {
        shared.sessions.leave(id);
    }
    shared.log.record(Event::Disconnected { session });
}

struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    inbox: Inbox,
    session: Option<SessionId>,
    number: u64,
    frozen_up_to: watch::Receiver<u64>,
}

/// Takes the session out of the table, however its connection ends.
struct Leaving<'a>(&'a Sessions, SessionId);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        match self.shared.script.on_connect() {
            None => {}
            Some(ConnectFault::Close) => return Ok(()),
            Some(ConnectFault::Silence) => return self.listen_in_silence().await,
            Some(ConnectFault::Garbage(bytes)) => {
                self.stream.write_all(&bytes).await?;
                return self.linger().await;
            }
        }
        if let Some((registration, session)) = self.login().await? {
            self.full_feature(registration, session).await?;
        }
        self.linger().await
    }

    /// Returns at once, unless and until this connection is not frozen.
    async fn thawed(&mut self) {
        let number = self.number;
        let _ = self.frozen_up_to.wait_for(|limit| *limit < number).await;
    }

    async fn listen_in_silence(&mut self) -> io::Result<()> {
        let mut heard = [0; 4096];
        while self.stream.read(&mut heard).await? > 0 {}
        Ok(())
    }

    /// Says that nothing more comes, and hears the other side out: a close with unread data would
    /// reset the connection and lose what was sent last.
    async fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let _ = tokio::time::timeout(LINGER, self.listen_in_silence()).await;
        Ok(())
    }

    /// The login phase. `None` when it ends without a session.
    async fn login(&mut self) -> io::Result<Option<(Registration, Session)>> {
        let mut login = Login::new(Arc::clone(&self.shared));
        let mut stat_sn = FIRST_STAT_SN;
        loop {
            let Some((request, data)) = self.login_request().await? else {
                return Ok(None);
            };
            let mut answer = login.on_request(&request, &data);
            let (sending, registration) = self.conclude(&mut login, &mut answer).await;
            match sending {
                Sending::Close => return Ok(None),
                Sending::Withhold => {}
                Sending::Send => {
                    let cmd_sn = request.cmd_sn();
                    self.send_login_answer(&answer, stat_sn, cmd_sn).await?;
                    stat_sn = stat_sn.wrapping_add(1);
                }
            }
            if answer.status != 0 {
                self.shared.log.record(answer.refusal_event());
                return Ok(None);
            }
            if let Some(registration) = registration {
                let session = self.enter(login, &registration, stat_sn, request.cmd_sn());
                return Ok(Some((registration, session)));
            }
        }
    }

    /// Lets the script spoil an answer; when the login is done all the same, ends the session it
    /// reinstates and enters the new one.
    async fn conclude(
        &mut self,
        login: &mut Login,
        answer: &mut LoginAnswer,
    ) -> (Sending, Option<Registration>) {
        let seen = &login.authentication.challenge_seen;
        self.shared.note_challenge(seen);
        let agreed = answer.is_last() && !login.endless;
        let (sending, zero_tsih) = self.spoil(answer, login);
        if sending == Sending::Close || !agreed || !answer.is_last() {
            return (sending, None);
        }
        let registration = self.shared.sessions.enter(login.identity.clone()).await;
        answer.tsih = if zero_tsih { 0 } else { registration.tsih };
        self.session = Some(registration.id);
        (sending, Some(registration))
    }

    /// The next login request; `None` at the end of the stream.
    async fn login_request(&mut self) -> io::Result<Option<(Bhs, Vec<u8>)>> {
        loop {
            self.thawed().await;
            let next = self
                .inbox
                .next(Digests::default())
                .map_err(io::Error::other)?;
            if let Some(pdu) = next {
                let (bhs, data, total_bytes) = (pdu.bhs, pdu.data.to_vec(), pdu.total_bytes);
                self.inbox.consume(total_bytes);
                return Ok(Some((bhs, data)));
            }
            self.shared.log.totals.receives.add(1);
            if self.inbox.fill(&mut self.stream).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Lets the script have its way; also says whether the TSIH is to be zero.
    fn spoil(&self, answer: &mut LoginAnswer, login: &mut Login) -> (Sending, bool) {
        let faults = self
            .shared
            .script
            .on_login(login.step, |fault| answer.can_have(fault));
        let zero_tsih = faults.contains(&LoginFault::ZeroTsih);
        let challenge_seen = self.shared.challenge_seen();
        let mut sending = Sending::Send;
        for fault in faults {
            match answer.spoil(fault, login, &challenge_seen) {
                Sending::Send => {}
                other => sending = other,
            }
        }
        if login.endless {
            answer.make_endless(login.step);
        }
        (sending, zero_tsih)
    }

    async fn send_login_answer(
        &mut self,
        answer: &LoginAnswer,
        stat_sn: u32,
        exp_cmd_sn: u32,
    ) -> io::Result<()> {
        let window = self.shared.config.negotiation.cmd_sn_window;
        let (bhs, text) = answer.encode(stat_sn, exp_cmd_sn, window);
        let (mut out, none) = (Outbox::default(), Digests::default());
        pdu::emit(&mut out, &bhs, &[], &text.into(), none, none);
        self.send(&out).await
    }

    fn enter(
        &mut self,
        login: Login,
        registration: &Registration,
        stat_sn: u32,
        cmd_sn: u32,
    ) -> Session {
        self.shared.log.totals.logins.add(1);
        let identity = login.identity;
        self.shared.log.record(Event::LoggedIn {
            session: registration.id,
            initiator_name: identity.initiator_name.clone(),
            isid: identity.isid,
            tsih: registration.tsih,
            discovery: identity.discovery,
        });
        self.inbox.set_limit(login.params.max_recv_bytes as usize);
        let shared = Arc::clone(&self.shared);
        // A login request is immediate: the first command has its CmdSN.
        Session::new(
            shared,
            registration.id,
            identity,
            login.params,
            stat_sn,
            cmd_sn,
        )
    }

    /// The full-feature phase, until either side or a reinstatement ends it.
    async fn full_feature(
        &mut self,
        mut registration: Registration,
        mut session: Session,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let _leaving = Leaving(&shared.sessions, registration.id);
        tokio::select! {
            ended = self.converse(&mut registration.mail, &mut session) => ended,
            _ = registration.displaced.wait_for(|displaced| *displaced) => Ok(()),
        }
    }

    async fn converse(
        &mut self,
        mail: &mut tokio::sync::mpsc::Receiver<crate::sessions::Mail>,
        session: &mut Session,
    ) -> io::Result<()> {
        loop {
            self.thawed().await;
            let drained = self.drain(session);
            self.flush(session).await?;
            match drained {
                Drained::Close => return Ok(()),
                Drained::Full => continue,
                Drained::Empty => {}
            }
            let flow = tokio::select! {
                received = self.inbox.fill(&mut self.stream) => {
                    self.shared.log.totals.receives.add(1);
                    if received? == 0 { return Ok(()) } else { Flow::Go }
                }
                letter = mail.recv() => match letter {
                    Some(letter) => session.on_mail(letter),
                    None => Flow::Close,
                },
            };
            if flow == Flow::Close {
                return self.flush(session).await;
            }
        }
    }

    /// Handles every PDU that is there, as long as the answers stay within a bound.
    fn drain(&mut self, session: &mut Session) -> Drained {
        loop {
            if session.out.len() >= FLUSH_BYTES {
                return Drained::Full;
            }
            let digests = session.params.digests;
            let (flow, bytes) = match self.inbox.next(digests) {
                Ok(Some(pdu)) => (session.on_pdu(&pdu.bhs, pdu.data), pdu.total_bytes),
                Ok(None) => return Drained::Empty,
                Err(error) => (session.violation(error.to_string()), 0),
            };
            self.inbox.consume(bytes);
            if flow == Flow::Close {
                return Drained::Close;
            }
        }
    }

    /// Sends all answers of a wake-up.
    async fn flush(&mut self, session: &mut Session) -> io::Result<()> {
        self.send(&session.out).await?;
        session.out.clear();
        Ok(())
    }

    /// Sends in one write, or in as few as the socket lets it.
    async fn send(&mut self, out: &Outbox) -> io::Result<()> {
        let mut slices = out.slices();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            self.shared.log.totals.sends.add(1);
            let sent = self.stream.write_vectored(of_one_call(rest)).await?;
            IoSlice::advance_slices(&mut rest, sent);
        }
        Ok(())
    }
}

enum Drained {
    Empty,
    Full,
    Close,
}

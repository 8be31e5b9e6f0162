//! A name server over UDP and TCP that says what a test has it say.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

/// What is asked.
pub(super) struct Question {
    /// In lower case, with the dot at its end.
    pub(super) name: String,
    kind: RecordType,
    /// How often the same was asked before.
    pub(super) before: usize,
    pub(super) over_tcp: bool,
}

/// What is said to it.
pub(super) enum Answer {
    Records(Vec<Record>),
    NoName,
    Failure,
    /// No records and the hint to come over TCP.
    Truncated,
    Silence,
}

impl Question {
    /// Those of the addresses that are of the family asked for. They are not to be kept.
    pub(super) fn addresses(&self, addresses: &[IpAddr]) -> Answer {
        Answer::Records(self.records_of(&self.name, addresses))
    }

    /// That the name stands for another one, and what addresses that one has.
    pub(super) fn alias(&self, name: &str, addresses: &[IpAddr]) -> Answer {
        let alias = RData::CNAME(CNAME(Name::from_ascii(name).unwrap()));
        let mut records = vec![Record::from_rdata(Name::from_ascii(&self.name).unwrap(), 0, alias)];
        records.extend(self.records_of(name, addresses));
        Answer::Records(records)
    }

    /// Addresses, but not of the name that was asked for.
    pub(super) fn of_another(&self, name: &str, addresses: &[IpAddr]) -> Answer {
        Answer::Records(self.records_of(name, addresses))
    }

    fn records_of(&self, name: &str, addresses: &[IpAddr]) -> Vec<Record> {
        let name = Name::from_ascii(name).unwrap();
        let data = addresses.iter().map(|address| RData::from(*address));
        data.filter(|data| data.record_type() == self.kind)
            .map(|data| Record::from_rdata(name.clone(), 0, data))
            .collect()
    }
}

/// It answers until it is dropped.
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    asked: Asked,
    _serving: [AbortOnDropHandle<()>; 2],
}

type Asked = Arc<Mutex<HashMap<(String, RecordType), usize>>>;
type Zone = Arc<dyn Fn(&Question) -> Answer + Send + Sync>;

impl NameServer {
    pub(super) async fn start(zone: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Self {
        let zone: Zone = Arc::new(zone);
        let asked = Asked::default();
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let serving = [
            tokio::spawn(serve_udp(udp, zone.clone(), asked.clone())),
            tokio::spawn(serve_tcp(tcp, zone, asked.clone())),
        ];
        Self {
            address,
            asked,
            _serving: serving.map(AbortOnDropHandle::new),
        }
    }

    /// Begins counting anew.
    pub(super) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    /// How often the name's addresses of either family were asked for.
    pub(super) fn asked_for(&self, name: &str) -> [usize; 2] {
        let asked = self.asked.lock().unwrap();
        [RecordType::A, RecordType::AAAA].map(|kind| asked.get(&(name.to_owned(), kind)).copied().unwrap_or_default())
    }
}

/// On one port, as name servers are.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Zone, asked: Asked) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length], false, &zone, &asked) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Zone, asked: Asked) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, zone.clone(), asked.clone()));
    }
}

/// Each message has its length before it (RFC 1035 §4.2.2).
async fn serve_connection(mut stream: TcpStream, zone: Zone, asked: Asked) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        if let Some(answer) = answer(&question, true, &zone, &asked) {
            stream.write_u16(answer.len().try_into().unwrap()).await?;
            stream.write_all(&answer).await?;
        }
    }
}

fn answer(question: &[u8], over_tcp: bool, zone: &Zone, asked: &Asked) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).unwrap();
    let query = &message.queries[0];
    let (name, kind) = (query.name().to_ascii().to_lowercase(), query.query_type());
    let before = {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry((name.clone(), kind)).or_default();
        *count += 1;
        *count - 1
    };
    let mut answer = Message::response(message.metadata.id, message.metadata.op_code);
    answer.add_query(query.clone());
    match zone(&Question {
        name,
        kind,
        before,
        over_tcp,
    }) {
        Answer::Records(records) => {
            answer.add_answers(records);
        }
        Answer::NoName => answer.metadata.response_code = ResponseCode::NXDomain,
        Answer::Failure => answer.metadata.response_code = ResponseCode::ServFail,
        Answer::Truncated => answer.metadata.truncation = true,
        Answer::Silence => return None,
    }
    Some(answer.to_vec().unwrap())
}

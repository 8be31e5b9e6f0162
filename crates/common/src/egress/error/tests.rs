use rustls::{InvalidMessage, PeerIncompatible};

use super::*;

#[test]
fn what_the_network_says_is_told_in_words() {
    for (kind, text) in [
        (io::ErrorKind::ConnectionRefused, "connection refused"),
        (io::ErrorKind::ConnectionReset, "the connection was reset"),
        (io::ErrorKind::BrokenPipe, "the connection was reset"),
        (io::ErrorKind::ConnectionAborted, "the connection was reset"),
        (io::ErrorKind::HostUnreachable, "no route to the host"),
        (io::ErrorKind::NetworkUnreachable, "no route to the host"),
        (io::ErrorKind::TimedOut, "no connection in time"),
        (io::ErrorKind::PermissionDenied, "no connection"),
    ] {
        let error = Error::of_dial(&io::Error::from(kind));
        assert_eq!((error.class, &*error.text), (ErrorClass::Connect, text), "{kind}");
        assert_eq!((error.tls_fault, error.status), (None, None));
    }
}

#[test]
fn what_is_wrong_with_a_session_has_a_name() {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    for (error, fault) in [
        (InvalidCertificate(CertificateError::Expired), TlsFault::Expired),
        (InvalidCertificate(CertificateError::NotValidYet), TlsFault::NotYetValid),
        (
            InvalidCertificate(CertificateError::NotValidForName),
            TlsFault::WrongName,
        ),
        (
            InvalidCertificate(CertificateError::UnknownIssuer),
            TlsFault::UnknownIssuer,
        ),
        (InvalidCertificate(CertificateError::Revoked), TlsFault::Revoked),
        (
            InvalidCertificate(CertificateError::BadSignature),
            TlsFault::InvalidCertificate,
        ),
        (AlertReceived(AlertDescription::UnrecognisedName), TlsFault::WrongName),
        (
            AlertReceived(AlertDescription::CertificateRequired),
            TlsFault::CertificateWanted,
        ),
        (AlertReceived(AlertDescription::ProtocolVersion), TlsFault::Incompatible),
        (
            AlertReceived(AlertDescription::HandshakeFailure),
            TlsFault::Incompatible,
        ),
        (
            AlertReceived(AlertDescription::InsufficientSecurity),
            TlsFault::Incompatible,
        ),
        (AlertReceived(AlertDescription::InternalError), TlsFault::Ended),
        (
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
            TlsFault::NotTls,
        ),
        (
            rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            TlsFault::Incompatible,
        ),
        (rustls::Error::DecryptError, TlsFault::Other),
    ] {
        let told = of_tls(&error);
        assert_eq!((told.class, told.tls_fault), (ErrorClass::Tls, Some(fault)), "{error}");
        // As it comes out of a connection.
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
        assert_eq!(Error::of_session(&wrapped), Some(told.clone()));
        assert_eq!(Error::of_handshake(&wrapped), told);
    }
    let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(Error::of_session(&closed), None);
    assert_eq!(Error::of_handshake(&closed).tls_fault, Some(TlsFault::Ended));
}

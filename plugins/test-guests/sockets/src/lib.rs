//! A transform that opens sockets and looks names up with the standard library. It imports `wasi:sockets` by that, which no
//! host gives: it must be refused before any of it runs.

use std::net::{TcpStream, ToSocketAddrs, UdpSocket};

use tidemill_plugin::{Descriptor, Emission, Failure, Message, NoConfig, Outcome, Plugin, Transform};

/// The plugin.
pub struct Sockets;

impl Plugin for Sockets {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "Opens sockets and looks names up")
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Sockets)
    }
}

impl Transform for Sockets {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        Ok(Outcome::each(&batch, |message, outcome| {
            let place = message.text()?;
            let found = place.to_socket_addrs().map_or(0, Iterator::count);
            let connected = TcpStream::connect(place).is_ok();
            let bound = UdpSocket::bind("0.0.0.0:0").is_ok();
            outcome.emit(Emission::new(format!("{found} {connected} {bound}")));
            Ok(())
        }))
    }
}

tidemill_plugin::export_transform!(Sockets);

//! Against `snow`, another implementation of the Noise framework: the same messages and keys, byte for byte.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use snow::{Builder, HandshakeState};

use super::{initiator::Initiation, responder::Opened, *};
use crate::{message::RESPONSE_LEN, symmetric, timestamp::Timestamp};

const PROTOCOL: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Two ends with fixed keys, in both implementations.
struct Case {
    initiator: WgPrivateKey,
    responder: WgPrivateKey,
    initiator_ephemeral: Key,
    responder_ephemeral: Key,
    time: Timestamp,
}

impl Case {
    fn new(seed: [u8; 4], seconds: u64) -> Self {
        let [a, b, c, d] = seed;
        Self {
            initiator: WgPrivateKey::from_random([a; 32]),
            responder: WgPrivateKey::from_random([b ^ 0x80; 32]),
            initiator_ephemeral: Key::new([c; 32]),
            responder_ephemeral: Key::new([d; 32]),
            time: Timestamp::after(None, UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    fn begin(&self) -> (Identity, Initiation, [u8; 148]) {
        let identity = Identity::new(&self.initiator);
        let mut remote = Remote::new(self.responder.public()).unwrap();
        let (initiation, message) =
            Initiation::new(&identity, &mut remote, 0x0102_0304, &self.initiator_ephemeral, self.time)
                .unwrap();
        (identity, initiation, message)
    }

    fn read(&self, message: &[u8; 148]) -> Result<(Opened, Timestamp), NotAuthentic> {
        let identity = Identity::new(&self.responder);
        let mut opened = Opened::read(&identity, message)?;
        let mut remote = Remote::new(opened.sender).ok_or(NotAuthentic)?;
        let time = opened.authenticate(&identity, &mut remote, message)?;
        Ok((opened, time))
    }

    fn snow(&self, initiates: bool) -> HandshakeState {
        let (own, ephemeral) = if initiates {
            (&self.initiator, &self.initiator_ephemeral)
        } else {
            (&self.responder, &self.responder_ephemeral)
        };
        let remote = self.responder.public().0;
        let builder = Builder::new(PROTOCOL.parse().unwrap()).prologue(PROLOGUE).unwrap();
        let builder = builder.local_private_key(own.expose()).unwrap().psk(2, &[0; 32]).unwrap();
        let builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral.as_slice());
        if initiates {
            builder.remote_public_key(&remote).unwrap().build_initiator().unwrap()
        } else {
            builder.build_responder().unwrap()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn says_what_noise_says(seed in any::<[u8; 4]>(), seconds in 0u64..1 << 40) {
        let case = Case::new(seed, seconds);
        let (mut a, mut b) = (case.snow(true), case.snow(false));
        let (identity, initiation, first) = case.begin();

        let mut expected = [0; 108];
        prop_assert_eq!(a.write_message(&case.time.0, &mut expected).unwrap(), 108);
        prop_assert_eq!(&first[..8], &[1, 0, 0, 0, 4, 3, 2, 1]);
        prop_assert_eq!(&first[8..116], &expected[..]);

        let (opened, time) = case.read(&first).unwrap();
        prop_assert_eq!(opened.sender, case.initiator.public());
        prop_assert_eq!(time, case.time);
        let mut payload = [0; 12];
        b.read_message(&expected, &mut payload).unwrap();

        let (peer, theirs, second) = opened.answer(0x0a0b_0c0d, &case.responder_ephemeral).unwrap();
        let mut expected = [0; 48];
        prop_assert_eq!(b.write_message(&[], &mut expected).unwrap(), 48);
        prop_assert_eq!(&second[..12], &[2, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 4, 3, 2, 1]);
        prop_assert_eq!(&second[12..60], &expected[..]);
        prop_assert_eq!(peer, 0x0102_0304);

        let (peer, ours) = initiation.finish(&identity, &second).unwrap();
        prop_assert_eq!(peer, 0x0a0b_0c0d);
        prop_assert!(ours.send == theirs.receive && ours.receive == theirs.send && ours.send != ours.receive);

        // What the sessions encrypt is the same as well.
        a.read_message(&expected, &mut []).unwrap();
        let a = a.into_stateless_transport_mode().unwrap();
        let mut sealed = [0; 21];
        a.write_message(7, b"hello", &mut sealed).unwrap();
        prop_assert_eq!(&*symmetric::open(&theirs.receive, 7, &[], &mut sealed).unwrap(), b"hello");
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed(at in 0usize..60, bit in 0u8..8) {
        let case = Case::new([1, 2, 3, 4], 5);
        let (identity, initiation, first) = case.begin();
        let mut changed = first;
        changed[8 + at * 108 / 60] ^= 1 << bit;
        // X25519 leaves the highest bit of a key out; the hash of what was said does not.
        prop_assert!(case.read(&changed).is_err());
        let (opened, _) = case.read(&first).unwrap();
        let (.., second) = opened.answer(9, &case.responder_ephemeral).unwrap();
        let mut changed: [u8; RESPONSE_LEN] = second;
        changed[at.max(12)] ^= 1 << bit;
        prop_assert!(initiation.finish(&identity, &changed).is_err());
        // The wrong one took nothing away from the right one.
        prop_assert!(initiation.finish(&identity, &second).is_ok());
    }
}

#[test]
fn points_of_low_order_are_refused_everywhere() {
    let case = Case::new([1, 2, 3, 4], 5);
    let (identity, initiation, mut first) = case.begin();
    first[8..40].fill(0);
    assert!(Opened::read(&Identity::new(&case.responder), &first).is_err());
    let mut second = [0; RESPONSE_LEN];
    assert!(initiation.finish(&identity, &second).is_err());
    second[12] = 1;
    assert!(initiation.finish(&identity, &second).is_err());
    assert!(Remote::new(WgPublicKey([0; 32])).is_none());
}

//! Messages: what a frame's body may be, one type for each kind.
//!
//! A body is a plain struct of fixed-width integers, byte arrays and vectors of such, in
//! `greeting`, `peer` and `client`; never a pointer that is shared, a niche or `dyn`. Its bytes are
//! rkyv's archived form: little endian, aligned, 32-bit relative pointers, the root at the end.
//! Fields stand by falling width, so that holes are only at the end of a struct; they are written
//! as zeros and not read. A published type never changes: what has another shape is another kind.
//! Knows no stream.

use rkyv::api::low::{LowDeserializer, LowSerializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Archive, Archived, Deserialize, Portable, Serialize};

use super::Kind;
use super::client::{
    Append, AppendReply, Fetch, FetchReply, GroupStatus, PeerStatus, ReplicaStatus, ScrubRequest,
    Status, StatusRequest, Transfer, TransferReply, TrimReply, TrimRequest,
};
use super::greeting::{Hello, LogName, NodeAddress, Refused, Welcome};
use super::peer::{
    AppendEntries, AppendEntriesAck, Beat, BeatAck, BlockReply, BlockRequest, BlockSum, BlockSums,
    Heartbeat, HeartbeatAck, Referral, ReferralEnd, Restore, StateReport, TimeoutNow, VoteReply,
    VoteRequest,
};
use super::refusal::Refusal;
use super::writer::BodyOut;
use crate::limits::{FRAME_ALIGN, FRAME_BODY_SIZE_MAX, GROUP_COUNT_MAX, START_COUNT_MAX};

/// A type that is the body of a kind of frames.
pub trait Body:
    Archive<
        Archived: Portable
                      + for<'a> CheckBytes<LowValidator<'a, Failure>>
                      + Deserialize<Self, LowDeserializer<Failure>>,
    > + for<'a> Serialize<LowSerializer<BodyOut<'a>, ArenaHandle<'a>, Failure>>
    + Sized
{
    /// What a frame with this body is.
    const KIND: Kind;

    /// Smallest body of this kind, in bytes: that with nothing in its vectors.
    const SIZE_MIN: usize = fixed::<Self>();

    /// Largest body of this kind, in bytes; of a type without vectors the only size.
    const SIZE_MAX: usize;

    /// An own copy of a body that was received, where one is needed for longer than its frame.
    ///
    /// # Errors
    ///
    /// `Malformed`; not reached for what a frame's `message` gave.
    fn owned(archived: &Archived<Self>) -> Result<Self, Refusal> {
        rkyv::api::low::deserialize::<Self, Failure>(archived)
            .map_err(|Failure| Refusal::Malformed { kind: Self::KIND })
    }
}

/// Size of a body without vectors.
const fn fixed<T: Archive>() -> usize {
    size_of::<Archived<T>>()
}

/// Largest size of a body with one vector, of `count_max` elements that hold no vectors.
const fn listed<T: Archive, Element: Archive>(count_max: usize) -> usize {
    fixed::<T>() + (count_max * fixed::<Element>()).next_multiple_of(align_of::<Archived<T>>())
}

/// Bytes of the sentence that goes with a refusal.
pub const DETAIL_SIZE_MAX: usize = 1024;

macro_rules! messages {
    ($($name:ident: $size_max:expr,)*) => {
        /// The body of a frame that was received, checked, in place.
        #[derive(Clone, Copy, Debug)]
        pub enum Message<'a> {
            $(
                #[doc = concat!("Of a frame of kind `", stringify!($name), "`.")]
                $name(&'a Archived<$name>),
            )*
        }

        impl<'a> Message<'a> {
            /// Checks the whole structure of `body`, which must be aligned to [`FRAME_ALIGN`].
            pub(crate) fn read(kind: Kind, body: &'a [u8]) -> Result<Self, Refusal> {
                assert!(body.as_ptr().addr().is_multiple_of(FRAME_ALIGN));
                assert!(body.len() >= body_size_min(kind) && body.len() <= body_size_max(kind));
                match kind {
                    $(Kind::$name => access::<$name>(body).map(Self::$name),)*
                }
            }
        }

        $(
            impl Body for $name {
                const KIND: Kind = Kind::$name;
                const SIZE_MAX: usize = $size_max;
            }
        )*

        /// Smallest body of a kind, in bytes; never zero.
        #[must_use]
        pub const fn body_size_min(kind: Kind) -> usize {
            match kind {
                $(Kind::$name => <$name as Body>::SIZE_MIN,)*
            }
        }

        /// Largest body of a kind, in bytes.
        #[must_use]
        pub const fn body_size_max(kind: Kind) -> usize {
            match kind {
                $(Kind::$name => <$name as Body>::SIZE_MAX,)*
            }
        }
    };
}

messages! {
    Hello: listed::<Hello, u64>(START_COUNT_MAX),
    Welcome: FRAME_BODY_SIZE_MAX,
    Refused: listed::<Refused, u8>(DETAIL_SIZE_MAX),
    Heartbeat: listed::<Heartbeat, Beat>(GROUP_COUNT_MAX),
    HeartbeatAck: listed::<HeartbeatAck, BeatAck>(GROUP_COUNT_MAX),
    AppendEntries: fixed::<AppendEntries>(),
    AppendEntriesAck: fixed::<AppendEntriesAck>(),
    VoteRequest: fixed::<VoteRequest>(),
    VoteReply: fixed::<VoteReply>(),
    TimeoutNow: fixed::<TimeoutNow>(),
    BlockRequest: fixed::<BlockRequest>(),
    BlockReply: fixed::<BlockReply>(),
    Restore: fixed::<Restore>(),
    StateReport: fixed::<StateReport>(),
    BlockSums: listed::<BlockSums, BlockSum>(GROUP_COUNT_MAX),
    Referral: fixed::<Referral>(),
    ReferralEnd: fixed::<ReferralEnd>(),
    Append: fixed::<Append>(),
    AppendReply: fixed::<AppendReply>(),
    Fetch: fixed::<Fetch>(),
    FetchReply: fixed::<FetchReply>(),
    StatusRequest: fixed::<StatusRequest>(),
    Status: FRAME_BODY_SIZE_MAX,
    Transfer: fixed::<Transfer>(),
    TransferReply: fixed::<TransferReply>(),
    TrimRequest: fixed::<TrimRequest>(),
    TrimReply: fixed::<TrimReply>(),
    ScrubRequest: fixed::<ScrubRequest>(),
}

fn access<T: Body>(body: &[u8]) -> Result<&Archived<T>, Refusal> {
    // Checked access only: what came from a socket may be anything.
    rkyv::api::low::access::<Archived<T>, Failure>(body)
        .map_err(|Failure| Refusal::Malformed { kind: T::KIND })
}

// The format is chosen by features of rkyv, and features of all dependents add up: here a build
// that got others stops. The types are equal only if numbers are little endian and aligned.
const _: fn(rkyv::primitive::ArchivedU16) -> rkyv::rend::u16_le = |number| number;
const _: fn(rkyv::primitive::ArchivedU32) -> rkyv::rend::u32_le = |number| number;
const _: fn(rkyv::primitive::ArchivedU64) -> rkyv::rend::u64_le = |number| number;
const _: fn(rkyv::primitive::FixedUsize) -> u32 = |size| size;
const _: fn(rkyv::primitive::FixedIsize) -> i32 = |distance| distance;

/// Asserts size and alignment of an archived type, and where its last field stands.
macro_rules! assert_layout {
    ($($type:ident: $size:literal bytes, align $align:literal, $last:ident at $at:literal;)*) => {$(
        const _: () = {
            assert!(size_of::<Archived<$type>>() == $size);
            assert!(align_of::<Archived<$type>>() == $align);
            assert!($align <= FRAME_ALIGN);
            assert!(std::mem::offset_of!(Archived<$type>, $last) == $at);
        };
    )*};
}

assert_layout! {
    Hello: 56 bytes, align 8, version_max at 52;
    Welcome: 56 bytes, align 8, version at 48;
    NodeAddress: 24 bytes, align 8, address at 16;
    LogName: 12 bytes, align 4, name at 4;
    Refused: 12 bytes, align 4, reason at 8;
    Heartbeat: 40 bytes, align 8, beats at 32;
    Beat: 40 bytes, align 8, group at 32;
    HeartbeatAck: 16 bytes, align 8, acks at 8;
    BeatAck: 32 bytes, align 8, group at 24;
    AppendEntries: 40 bytes, align 8, count at 36;
    AppendEntriesAck: 40 bytes, align 8, matched at 36;
    VoteRequest: 32 bytes, align 8, transfer at 29;
    VoteReply: 24 bytes, align 8, granted at 21;
    TimeoutNow: 16 bytes, align 8, group at 8;
    BlockRequest: 32 bytes, align 8, sum at 28;
    BlockReply: 32 bytes, align 8, outcome at 24;
    Restore: 24 bytes, align 8, group at 16;
    StateReport: 48 bytes, align 8, is_reply at 46;
    BlockSums: 8 bytes, align 4, sums at 0;
    BlockSum: 24 bytes, align 8, is_asked at 17;
    Referral: 40 bytes, align 8, sum at 36;
    ReferralEnd: 24 bytes, align 8, group at 16;
    Append: 40 bytes, align 8, epoch at 32;
    AppendReply: 40 bytes, align 8, durability at 38;
    Fetch: 32 bytes, align 8, mode at 28;
    FetchReply: 48 bytes, align 8, outcome at 44;
    StatusRequest: 8 bytes, align 8, request at 0;
    Status: 128 bytes, align 8, timeout_reason at 120;
    PeerStatus: 24 bytes, align 8, connected at 16;
    GroupStatus: 64 bytes, align 8, state at 60;
    ReplicaStatus: 32 bytes, align 8, state at 28;
    Transfer: 24 bytes, align 8, group at 16;
    TransferReply: 24 bytes, align 8, outcome at 16;
    TrimRequest: 24 bytes, align 8, group at 16;
    TrimReply: 40 bytes, align 8, outcome at 32;
    ScrubRequest: 8 bytes, align 8, request at 0;
}

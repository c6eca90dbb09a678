//! Ids and ranges as the catalog stores them, with the feature `bincode`.

use bincode::de::{Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;

use super::ids::{GroupId, NodeId, RouteId};
use super::routes::KeyRange;

macro_rules! number {
    ($type:ty, |$value:ident| $get:expr, |$number:ident| $new:expr) => {
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                let $value = self;
                $get.encode(encoder)
            }
        }
        impl<C> Decode<C> for $type {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let $number = u64::decode(decoder)?;
                $new
            }
        }
        bincode::impl_borrow_decode!($type);
    };
}

number!(RouteId, |id| id.get(), |id| RouteId::new(id)
    .ok_or(DecodeError::Other("0 is no route id")));
number!(GroupId, |id| id.0, |id| Ok(GroupId(id)));
number!(NodeId, |id| id.0, |id| Ok(NodeId(id)));

impl Encode for KeyRange {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.start.as_ref().encode(encoder)?;
        self.end.as_deref().encode(encoder)
    }
}

impl<C> Decode<C> for KeyRange {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let start = Bytes::from(Vec::<u8>::decode(decoder)?);
        let end = Option::<Vec<u8>>::decode(decoder)?.map(Bytes::from);
        Ok(KeyRange { start, end })
    }
}
bincode::impl_borrow_decode!(KeyRange);

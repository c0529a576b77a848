//! The protobuf codec of every service: prost's, with a typed refusal where a request cannot be
//! decoded. (The stock codec answers INTERNAL, as if the fault were the server's.)

use std::{collections::HashMap, marker::PhantomData};

use prost::Message;
use tonic::{
    Code, Status,
    codec::{Codec as TonicCodec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};
use tonic_types::{ErrorDetails, StatusExt};

/// Encodes `T`, decodes `U`.
#[derive(Debug, Clone)]
pub struct Codec<T, U> {
    types: PhantomData<(T, U)>,
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<T, U> TonicCodec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = TypedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        TypedDecoder { item: PhantomData }
    }
}

/// Decodes `U`, or says what was wrong with it.
#[derive(Debug)]
pub struct TypedDecoder<U> {
    item: PhantomData<U>,
}

impl<U: Message + Default> Decoder for TypedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer).map(Some).map_err(|error| refusal(&error))
    }
}

fn refusal(error: &prost::DecodeError) -> Status {
    let text = error.to_string();
    let (reason, message) = if text.contains("UTF-8") {
        ("NOT_UTF8", format!("a text field is not valid UTF-8: {text}"))
    } else {
        ("MALFORMED", format!("not a message of this service: {text}"))
    };
    let details = ErrorDetails::with_error_info(reason, "bureau", HashMap::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

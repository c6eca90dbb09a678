//! Routes, their fate, and the changes between catalog versions.

use bincode::{Decode, Encode};

use keyviz_types::{GroupId, KeyRange, RouteId, RouteSpec};

/// At most two routes in key order: the parents of a route, or its children.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Encode, Decode)]
pub struct Kin([Option<RouteId>; 2]);

impl Kin {
    /// No route.
    pub const NONE: Kin = Kin([None, None]);

    /// One route.
    pub const fn one(id: RouteId) -> Self {
        Kin([Some(id), None])
    }

    /// Two routes, in key order.
    pub const fn two(left: RouteId, right: RouteId) -> Self {
        Kin([Some(left), Some(right)])
    }

    /// The first two of `ids`.
    pub fn first_of(ids: impl IntoIterator<Item = RouteId>) -> Self {
        let mut ids = ids.into_iter();
        Kin([ids.next(), ids.next()])
    }

    /// The routes.
    pub fn iter(&self) -> impl Iterator<Item = RouteId> + '_ {
        self.0.iter().flatten().copied()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }
}

/// Where a route comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Origin {
    /// One after a split, two after a merge, none from bootstrap.
    pub parents: Kin,
    /// Catalog version that created the route.
    pub created_version: u64,
    /// Unix time in milliseconds that the change bears.
    pub created_ms: u64,
}

/// One live route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Identity, keys and group, as the sampler takes them.
    pub spec: RouteSpec,
    /// Where it comes from.
    pub origin: Origin,
}

impl Route {
    /// Durable identity.
    pub fn id(&self) -> RouteId {
        self.spec.id
    }

    /// Keys of the route.
    pub fn range(&self) -> &KeyRange {
        &self.spec.range
    }

    /// The Raft group that holds the keys.
    pub fn group(&self) -> GroupId {
        self.spec.group
    }
}

/// A route that was split or merged away.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Retired {
    /// The route as it was.
    pub route: Route,
    /// Catalog version that retired it.
    pub retired_version: u64,
    /// Unix time in milliseconds that the change bears.
    pub retired_ms: u64,
    /// Two after a split, one after a merge.
    pub children: Kin,
}

/// What a change did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum DeltaKind {
    /// Created the first routes.
    Bootstrap,
    /// Retired one route and created two in its place.
    Split,
    /// Retired two neighbours and created one in their place.
    Merge,
    /// Put a route into another group. It stays the same route: the change names it both as
    /// retired and as created.
    Move,
}

impl DeltaKind {
    /// The name in every output.
    pub const fn name(self) -> &'static str {
        match self {
            DeltaKind::Bootstrap => "bootstrap",
            DeltaKind::Split => "split",
            DeltaKind::Merge => "merge",
            DeltaKind::Move => "move",
        }
    }

    /// The kind that has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [DeltaKind::Bootstrap, DeltaKind::Split, DeltaKind::Merge, DeltaKind::Move]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// The change from catalog version `version - 1` to `version`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Delta {
    /// The version that it makes.
    pub version: u64,
    /// What it did.
    pub kind: DeltaKind,
    /// Unix time in milliseconds; never less than that of the change before it.
    pub time_ms: u64,
    /// Routes that end here, in key order.
    pub retired: Vec<RouteId>,
    /// Routes that begin here, in key order, over exactly the keys of the retired ones.
    pub created: Vec<Route>,
}

impl Encode for Route {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.spec.id.encode(encoder)?;
        self.spec.range.encode(encoder)?;
        self.spec.group.encode(encoder)?;
        self.origin.encode(encoder)
    }
}

impl<C> Decode<C> for Route {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Ok(Route {
            spec: RouteSpec {
                id: RouteId::decode(decoder)?,
                range: KeyRange::decode(decoder)?,
                group: GroupId::decode(decoder)?,
            },
            origin: Origin::decode(decoder)?,
        })
    }
}
bincode::impl_borrow_decode!(Route);

//! Names, numbers, lookup counts, attributes, freshness, and the state machine of each file.
//!
//! Owns everything the mount remembers of the tree, in memory, behind short locks. Knows nothing of requests to S3, of
//! transfers or of the kernel: it is told what S3 said, and asked what may be done.

mod attr;
mod backing;
mod freshness;
mod gate;
mod listing;
mod listings;
mod node;
mod owned;
mod posix;
mod settled;
mod state;
mod table;
mod xattr;

pub use attr::{Attr, Device, FileType, Kind, Ownership, OwnershipChange, TARGET_MAX};
pub use backing::Backing;
pub use freshness::{Belief, Span};
pub use gate::{Closed, Passage};
pub use listing::{Changes, Changing, DirNames, KeptListing, Known, Listed, Lister};
pub use node::{Attempt, Body, DirBody, Inode, NodeData, Opens, WriteTicket, WriteTurn};
pub use owned::{Owned, Prior};
pub use posix::{PERMISSION_BITS, StoredAttributes};
pub use settled::Settled;
pub use state::{Clean, Draft, Event, FileState, Located, Origin, Phase, Remains};
pub use table::{InodeTable, Pin, Place};
pub use xattr::{ObjectFact, Presence, XattrChange, XattrChanges, XattrName, xattr_names, xattr_value};

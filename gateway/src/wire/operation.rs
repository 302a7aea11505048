//! The table of operations and the table of error codes. Numbers are never reused.

macro_rules! table {
    ($(#[$doc:meta])* $name:ident: $repr:ty { $($(#[$item_doc:meta])* $item:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($repr)]
        #[non_exhaustive]
        pub enum $name { $($(#[$item_doc])* $item = $value,)* }

        impl $name {
            /// Every row of the table.
            pub const ALL: &'static [$name] = &[$($name::$item,)*];

            /// The row with this number.
            pub fn from_number(number: $repr) -> Option<$name> {
                match number { $($value => Some($name::$item),)* _ => None }
            }

            /// Its number on the wire.
            pub fn number(self) -> $repr {
                self as $repr
            }

            /// Its name in documents and logs.
            pub fn name(self) -> &'static str {
                match self { $($name::$item => $text,)* }
            }
        }
    };
}

table! {
    /// What a frame asks for or tells. Requests below 200, pushes from 200, administration from 900.
    Operation: u16 {
        /// First frame of a connection that is to be attached or to act for a user. `Hello` → `HelloReply`.
        Hello = 1, "hello";
        /// `Ping` → `Pong`.
        Ping = 2, "ping";
        /// `Register` → `Tokens`.
        Register = 10, "account.register";
        /// `Login` → `Tokens`.
        Login = 11, "account.login";
        /// `Refresh` → `Tokens`.
        Refresh = 12, "account.refresh";
        /// `FindUsers` → `FoundUsers`.
        FindUsers = 13, "user.find";
        /// `Send` → `SendReply`.
        Send = 20, "message.send";
        /// `History` → `HistoryReply`.
        History = 21, "message.history";
        /// `Recall` → `RecallReply`. With a token of role admin: of anybody's message.
        Recall = 22, "message.recall";
        /// `Cursors` → `CursorsReply`.
        Delivered = 30, "receipt.delivered";
        /// `Cursors` → `CursorsReply`.
        Read = 31, "receipt.read";
        /// `OpenDirect` → `Conversation`.
        OpenDirect = 40, "conversation.open";
        /// `ListConversations` → `ConversationList`.
        ListConversations = 41, "conversation.list";
        /// `CreateGroup` → `GroupReply`.
        CreateGroup = 50, "group.create";
        /// `ChangeMembers` → `GroupReply`.
        AddMembers = 51, "group.add";
        /// `ChangeMembers` → `GroupReply`.
        RemoveMembers = 52, "group.remove";
        /// `LeaveGroup` → `GroupReply`.
        LeaveGroup = 53, "group.leave";
        /// `ListMembers` → `MemberList`.
        ListMembers = 54, "group.members";
        /// Push of `Deliver`.
        Deliver = 200, "push.deliver";
        /// Push of `Attached`.
        Attached = 201, "push.attached";
        /// Push of `CaughtUp`.
        CaughtUp = 202, "push.caught_up";
        /// Push of `CursorReset`.
        CursorReset = 203, "push.cursor_reset";
        /// Push of `Accepted`.
        Accepted = 204, "push.accepted";
        /// Push of `Receipts`.
        Receipts = 205, "push.receipts";
        /// Push of `Drain`.
        Drain = 206, "push.drain";
        /// Push of `Error`: why the server is about to close.
        Closing = 207, "push.closing";
        /// `ImportUsers` → `ImportedUsers`.
        ImportUsers = 900, "admin.import_users";
        /// `MintTokens` → `MintedTokens`.
        MintTokens = 901, "admin.mint_tokens";
        /// `ListShards` → `ShardList`.
        ListShards = 902, "admin.list_shards";
        /// `SealShards` → `SealedShards`, when every segment is durable.
        SealShards = 903, "admin.seal_shards";
        /// `Probe` → `ProbeReply`. Any signed-in user.
        Probe = 904, "health.probe";
        /// `OpenExport` → `OpenedExport`, when every shard has its Seal.
        OpenExport = 910, "admin.open_export";
        /// `ListExport` → `ExportList`.
        ListExport = 911, "admin.list_export";
        /// `ReadExport` → `ExportPiece`.
        ReadExport = 912, "admin.read_export";
        /// `CloseExport` → `ClosedExport`.
        CloseExport = 913, "admin.close_export";
        /// `ReadEntries` → `LogEntries`.
        ReadEntries = 914, "admin.read_entries";
        /// `Trim` → `TrimReply`.
        Trim = 920, "admin.trim";
        /// `Retain` → `RetainReply`.
        Retain = 921, "admin.retain";
        /// `EraseUser` → `Erasures` of that user, when no reader sees a message of theirs any more; files follow.
        EraseUser = 922, "admin.erase_user";
        /// `ListErasures` → `Erasures`.
        ListErasures = 923, "admin.list_erasures";
        /// `Compact` → `CompactPlans` that are due; to begin them is not to wait for them.
        Compact = 924, "admin.compact";
        /// `Sweep` → `SweptShards`.
        Sweep = 925, "admin.sweep";
        /// `ImportSteps` → `ImportedSteps`, when the steps are in the log.
        ImportSteps = 930, "admin.import_steps";
        /// `LookImport` → `ImportLook`.
        LookImport = 931, "admin.look_import";
    }
}

//! Values that several parameters have.

use utoipa::ToSchema;

/// The id of a source, a job, an image, a workgroup or an activation code. A text that is no id names nothing.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(max_length = 128)]
pub struct Id(pub String);

/// The key of a tag.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(max_length = 128)]
pub struct TagKey(pub String);

/// Makes the type of a parameter that is one of a few texts. An extension in brackets behind its name is added to the
/// schema: `"x-any-case": true` lets upper and lower case count as the same, and `"x-otherwise"` is the sentence for
/// callers who give another text.
macro_rules! texts {
    ($(#[doc = $doc:literal] $name:ident $([$extension:literal: $value:expr])? { $($variant:ident = $text:literal),* $(,)? })*) => {
        $(
            #[doc = $doc]
            #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
            pub enum $name {
                $(#[doc = concat!("`", $text, "`")] #[serde(rename = $text)] $variant,)*
            }

            impl $name {
                /// The text of the wire.
                pub fn as_str(self) -> &'static str {
                    match self {
                        $(Self::$variant => $text,)*
                    }
                }
            }

            impl utoipa::PartialSchema for $name {
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    utoipa::openapi::ObjectBuilder::new()
                        .schema_type(utoipa::openapi::Type::String)
                        .description(Some($doc.trim()))
                        .enum_values(Some([$($text),*]))
                        $(.extensions(Some([($extension.to_owned(), serde_json::json!($value))].into_iter().collect())))?
                        .into()
                }
            }

            impl utoipa::ToSchema for $name {
                fn name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )*
    };
}
pub(super) use texts;

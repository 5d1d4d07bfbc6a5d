//! Lists as the wire has them: an object that holds an array under the name of its items,
//! `{"DataDisks":{"DataDisk":[…]}}`.

/// Makes the type of a list from the wire name of its items and their type.
macro_rules! lists {
    ($($(#[$doc:meta])* $list:ident { $name:tt: $item:ty })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
            #[serde(default)]
            pub struct $list {
                #[serde(rename = $name)]
                items: Vec<$item>,
            }

            impl std::ops::Deref for $list {
                type Target = [$item];

                fn deref(&self) -> &[$item] {
                    &self.items
                }
            }

            impl FromIterator<$item> for $list {
                fn from_iter<I: IntoIterator<Item = $item>>(items: I) -> Self {
                    Self { items: items.into_iter().collect() }
                }
            }

            impl IntoIterator for $list {
                type Item = $item;
                type IntoIter = std::vec::IntoIter<$item>;

                fn into_iter(self) -> Self::IntoIter {
                    self.items.into_iter()
                }
            }
        )*
    };
}
pub(super) use lists;

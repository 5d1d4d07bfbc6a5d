//! The schemas that the types of the API derive, as the description publishes them and as the gateway reads them.

use std::collections::BTreeMap;
use std::fmt;

use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, SchemaType, Type};
use utoipa::openapi::{Object, RefOr, Schema, SchemaFormat};

use crate::operation::Field;

/// The owner of the schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A request's: the type determines the required fields.
    Request,
    /// An answer's: every field that can't be null is present.
    Answer,
}

/// A schema, with all those that it refers to.
#[derive(Clone)]
pub struct Schemas {
    /// The name of the schema itself.
    pub name: String,
    /// All of them by their names.
    pub all: BTreeMap<String, RefOr<Schema>>,
}

/// A value at one place of a request or an answer.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    /// The rule of the value.
    pub schema: &'a Object,
    /// Its meaning.
    pub meaning: &'a str,
    /// True if it must be there.
    pub is_required: bool,
    /// Most items of a list; 0 if it is no list.
    pub most: usize,
}

impl Schemas {
    /// Returns the schemas of a type.
    pub fn of<T: ToSchema>(whose: Of) -> Self {
        let name = T::name().into_owned();
        let mut all = vec![(name.clone(), T::schema())];
        T::schemas(&mut all);
        let all = all.into_iter();
        Self {
            name,
            all: all
                .map(|(name, schema)| (name, published(schema, whose)))
                .collect(),
        }
    }

    /// Returns the description of the type.
    pub fn description(&self) -> &str {
        meaning_of(&self.all[&self.name])
    }

    /// Returns true for the bytes of a file.
    pub fn is_binary(&self) -> bool {
        let binary = Some(SchemaFormat::KnownFormat(KnownFormat::Binary));
        matches!(&self.all[&self.name], RefOr::T(Schema::Object(object)) if object.format == binary)
    }

    /// Returns the fields of an answer, as the reference has them.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        self.leaves("[]", &mut |path, leaf| {
            let kind = match &leaf.schema.schema_type {
                SchemaType::Type(Type::Integer) => "integer",
                SchemaType::Type(Type::Number) => "number",
                SchemaType::Type(Type::Boolean) => "boolean",
                _ => "string",
            };
            if !path.is_empty() {
                let meaning = leaf.meaning.to_owned();
                fields.push(Field {
                    path,
                    kind,
                    meaning,
                });
            }
        });
        fields
    }

    /// Calls `see` with every value and its path: the names of fields, with `item` after those of lists.
    pub fn leaves<'a>(&'a self, item: &str, see: &mut impl FnMut(String, Leaf<'a>)) {
        self.walk(&self.all[&self.name], "", String::new(), item, true, 0, see);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is known at a place of the tree"
    )]
    fn walk<'a>(
        &'a self,
        schema: &'a RefOr<Schema>,
        meaning: &'a str,
        path: String,
        item: &str,
        is_required: bool,
        most: usize,
        see: &mut impl FnMut(String, Leaf<'a>),
    ) {
        match self.resolved(schema) {
            Schema::Array(list) => {
                let ArrayItems::RefOrSchema(items) = &list.items else {
                    return;
                };
                let most = list.max_items.unwrap_or(0);
                self.walk(items, meaning, path + item, item, is_required, most, see);
            }
            Schema::Object(object) if object.schema_type == SchemaType::Type(Type::Object) => {
                for (name, field) in &object.properties {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    let is_required = is_required && object.required.contains(name);
                    // The array in a list has no description beyond the list's.
                    let own = meaning_of(field);
                    let meaning = if own.is_empty() { meaning } else { own };
                    self.walk(field, meaning, path, item, is_required, most, see);
                }
            }
            Schema::Object(object) => see(
                path,
                Leaf {
                    schema: object,
                    meaning,
                    is_required,
                    most,
                },
            ),
            _ => unreachable!("{path}: no type of the API has such a schema"),
        }
    }

    fn resolved<'a>(&'a self, schema: &'a RefOr<Schema>) -> &'a Schema {
        match schema {
            RefOr::T(schema) => schema,
            RefOr::Ref(to) => {
                let name = to.ref_location.rsplit('/').next().unwrap_or_default();
                self.resolved(&self.all[name])
            }
        }
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schemas").field(&self.name).finish()
    }
}

fn meaning_of(schema: &RefOr<Schema>) -> &str {
    match schema {
        RefOr::Ref(to) => &to.description,
        RefOr::T(Schema::Object(object)) => object.description.as_deref().unwrap_or_default(),
        RefOr::T(Schema::Array(list)) => list.description.as_deref().unwrap_or_default(),
        RefOr::T(_) => "",
    }
}

/// Returns true if a field of this schema may be missing.
fn is_nullable(schema: &RefOr<Schema>) -> bool {
    let has_null =
        |kind: &SchemaType| matches!(kind, SchemaType::Array(kinds) if kinds.contains(&Type::Null));
    match schema {
        RefOr::T(Schema::Object(object)) => has_null(&object.schema_type),
        RefOr::T(Schema::Array(list)) => has_null(&list.schema_type),
        RefOr::T(Schema::OneOf(_)) => true,
        RefOr::T(_) | RefOr::Ref(_) => false,
    }
}

/// Returns a schema in its published form: the wire has no nulls, and the defaults of Rust's types are no defaults of
/// the API.
fn published(schema: RefOr<Schema>, whose: Of) -> RefOr<Schema> {
    let one_line = |text: String| text.replace('\n', " ");
    let schema = match schema {
        RefOr::Ref(mut to) => {
            to.default = None;
            to.description = one_line(to.description);
            return RefOr::Ref(to);
        }
        RefOr::T(schema) => schema,
    };
    match schema {
        Schema::Object(mut object) => {
            if whose == Of::Answer {
                let sure = object
                    .properties
                    .iter()
                    .filter(|(_, field)| !is_nullable(field));
                object.required = sure.map(|(name, _)| name.clone()).collect();
            }
            object.default = None;
            object.schema_type = without_null(object.schema_type);
            object.description = object.description.map(one_line);
            let fields = std::mem::take(&mut object.properties).into_iter();
            object.properties = fields
                .map(|(name, field)| (name, published(field, whose)))
                .collect();
            object.into()
        }
        Schema::Array(mut list) => {
            list.default = None;
            list.schema_type = without_null(list.schema_type);
            list.description = list.description.map(one_line);
            if let ArrayItems::RefOrSchema(items) = list.items {
                list.items = ArrayItems::RefOrSchema(Box::new(published(*items, whose)));
            }
            RefOr::T(Schema::Array(list))
        }
        // The schema beside null in the schema of an Option.
        Schema::OneOf(either) => {
            let is_null = |one: &RefOr<Schema>| matches!(one, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
            let mut others = either.items.into_iter().filter(|one| !is_null(one));
            let one = others.next().expect("an Option is of something");
            published(one, whose)
        }
        other => RefOr::T(other),
    }
}

fn without_null(kind: SchemaType) -> SchemaType {
    match kind {
        SchemaType::Array(kinds) => kinds
            .into_iter()
            .find(|kind| *kind != Type::Null)
            .map_or(SchemaType::AnyValue, SchemaType::Type),
        one => one,
    }
}
